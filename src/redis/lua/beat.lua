-- beat: extends a worker's lock, and tells it what it would miss if every notification were lost.
--
-- A lock that is gone before its deadline (evicted, or deleted by hand) is set again: the deadline says
-- when a lock ends, its key only announces it. Past the deadline it is only revived for a worker that is lenient,
-- and only as long as nobody has reaped it.
--
-- KEYS[1] meta
-- KEYS[2] workers
-- KEYS[3] deadlines
-- KEYS[4] load
-- KEYS[5] inbox
-- KEYS[6] pending
-- KEYS[7] lock   of this worker
-- KEYS[8] terms
-- KEYS[9] assigned
-- KEYS[10] rev
-- KEYS[11] watch
-- KEYS[12] changes
-- ARGV[1] incarnation
-- ARGV[2] worker
-- ARGV[3] ttl   ms
-- ARGV[4] draining   1: no new job
-- ARGV[5] terms   "<weight> <capacity> <rate>"
-- ARGV[6] lenient   1: revive the lock
-- ARGV[7] token   as in `reserve`
-- Returns {1, inbox, lifted, rank, other, other_ms, waiting, order}
--   inbox: revision of the last frame sent to this worker; rank: how many workers act before it;
--   other, other_ms: the worker whose lock ends first, and in how long (0, 0: none);
--   waiting: jobs without a worker although there is one with room; order: 0 none, 1 drain, 2 evict
--   {0, why} where the lock has ended: 1 the number is dead, 2 the deadline has passed, 3 another cluster
-- Errors none
-- Publishes nothing on the workers' channels

K.meta, K.workers, K.deadlines, K.load, K.inbox, K.pending, K.lock, K.terms, K.assigned =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.rev, K.watch, K.changes = KEYS[10], KEYS[11], KEYS[12]
local incarnation, worker, ttl, draining = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local terms, lenient, token = ARGV[5], ARGV[6] == '1', ARGV[7]

local meta = redis.call('HMGET', K.meta, 'incarnation', 'lifted')
if meta[1] ~= incarnation then
  return { 0, 3 }
end
if not is_member(worker, token) then
  return { 0, 1 }
end
local alive = redis.call('EXISTS', K.lock) == 1
if not alive and not lenient and now_ms >= tonumber(redis.call('ZSCORE', K.deadlines, worker) or '0') then
  return { 0, 2 }
end

if alive then
  redis.call('PEXPIRE', K.lock, ttl) -- works when memory is full, SET would not
else
  redis.call('SET', K.lock, incarnation, 'PX', ttl)
end
redis.call('ZADD', K.deadlines, int(now_ms + ttl), worker)

local current = redis.call('HMGET', K.terms, worker, worker .. ':order')
local order = current[2] == 'evict' and 2 or current[2] == 'drain' and 1 or 0
local rank = redis.call('ZRANK', K.load, worker)
if draining or order > 0 then
  if current[1] or rank then
    note(WORKER_DRAINING, tonumber(worker))
    dismiss(worker)
  end
  rank = nil
elseif current[1] ~= terms or not rank then
  if not current[1] then
    note(WORKER_RESUMED, tonumber(worker))
  end
  admit(worker, terms)
  rank = redis.call('ZRANK', K.load, worker)
end

if revision then
  redis.call('SET', K.rev, int(revision))
end
publish_changes()

local waiting = has_room() and redis.call('ZCARD', K.pending) or 0
local other, other_ms = earliest_but(worker)
return { 1, tonumber(redis.call('HGET', K.inbox, worker) or '0'), tonumber(meta[2] or '0'),
  rank or redis.call('ZCARD', K.load), other, other_ms, waiting, order }
