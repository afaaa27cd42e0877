-- join: a worker with a reserved number, whose subscriptions are confirmed, takes part.
-- It starts empty and asks `sync` for its first snapshot: there is one road to a snapshot.
--
-- A worker with a name is the heir of the last one of that name: it gets that one's jobs as they are let go of. If that
-- one is alive it is told to go, or the newcomer is refused, as the newcomer wishes. If it is dead and its jobs are kept
-- for the name, it is to be reaped at once.
--
-- Run twice it renews the lock and nothing more: a late copy does not take the name back. A number that was reaped or
-- has left does not come back.
--
-- KEYS[1] meta
-- KEYS[2] rev
-- KEYS[3] workers
-- KEYS[4] deadlines
-- KEYS[5] load
-- KEYS[6] inbox
-- KEYS[7] pending
-- KEYS[8] lock   of this worker
-- KEYS[9] terms
-- KEYS[10] assigned
-- KEYS[11] watch
-- KEYS[12] changes
-- ARGV[1] incarnation
-- ARGV[2] worker   its number
-- ARGV[3] ttl   ms
-- ARGV[4] terms   "<weight> <capacity> <rate>"
-- ARGV[5] inbox channel   prefix, the worker's number follows
-- ARGV[6] name   empty for none
-- ARGV[7] grace   ms for which its jobs are kept for one of the same name, once its lock has ended
-- ARGV[8] usurp   1: a living worker of the same name is told to go
-- ARGV[9] token   as in `reserve`
-- Returns {1, pending, due worker, ...} with at most 16 workers whose lock has ended; the caller reaps them.
--   {0, why, ms} where it may not: 1 the number is dead, 3 the cluster is another one now, 5 the name is a living
--   worker's, whose lock ends in `ms`
-- Errors none
-- Publishes an `attend` frame to a worker of the same name that has not been reaped

K.meta, K.rev, K.workers, K.deadlines, K.load, K.inbox, K.pending, K.lock, K.terms =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.assigned, K.watch, K.changes = KEYS[10], KEYS[11], KEYS[12]
K.inbox_channel = ARGV[5]
local incarnation, worker, ttl, terms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local name, grace, usurp, token = ARGV[6], ARGV[7], ARGV[8] == '1', ARGV[9]
demand_push()

if redis.call('HGET', K.meta, 'incarnation') ~= incarnation then
  return { 0, 3, 0 }
end
local deadline = tonumber(redis.call('ZSCORE', K.deadlines, worker) or '0')
if not is_member(worker, token) or now_ms >= deadline then
  return { 0, 1, 0 }
end
local first = redis.call('HEXISTS', K.inbox, worker) == 0
local last = first and name ~= '' and named(name)
local member = last and redis.call('HEXISTS', K.workers, last) == 1
local ends = last and tonumber(redis.call('ZSCORE', K.deadlines, last) or '0')
if member and now_ms < ends and not usurp then
  return { 0, 5, ends - now_ms }
end

redis.call('SET', K.lock, incarnation, 'PX', ttl)
redis.call('ZADD', K.deadlines, int(now_ms + ttl), worker)
if first then
  -- The chain of frames starts at a revision of its own, so that no older number's chain fits it.
  redis.call('HSET', K.inbox, worker, int(tick()))
  admit(worker, terms)
  note(WORKER_JOINED, tonumber(worker))
  redis.call('HSET', K.terms, worker .. ':ttl', ttl)
  if name ~= '' then
    redis.call('HSET', K.terms, 'name:' .. name, worker, worker .. ':name', grace .. ' ' .. name)
  end
end
if member then -- also if its lock has ended: it may revive it
  redis.call('HSET', K.terms, last .. ':order', 'evict')
  if redis.call('HEXISTS', K.terms, last) == 1 then
    note(WORKER_DRAINING, tonumber(last))
  end
  dismiss(last)
  send(last, tick(), { 0, 0, 0, ATTEND })
elseif last and ends > now_ms then
  redis.call('ZADD', K.deadlines, int(now_ms), last) -- its jobs were kept for this one
end
commit()

local reply = { 1, redis.call('ZCARD', K.pending) }
for _, due in ipairs(redis.call('ZRANGE', K.deadlines, 0, int(now_ms), 'BYSCORE', 'LIMIT', 0, 16)) do
  reply[#reply + 1] = tonumber(due)
end
return reply
