-- reap: if a worker's lock has ended, moves its jobs to others, a batch at a time.
--
-- The lock has ended when its key is gone *and* its deadline has passed: a key that was deleted or evicted early
-- does not end the lease that its worker counts on. Looking at the key also makes the server expire it now.
-- The first batch makes the number dead: it cannot beat, sync or join again. Its deadline stays until the last
-- batch, so that another finishes what a dying reaper began.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] assigned
-- KEYS[5] pending
-- KEYS[6] load
-- KEYS[7] inbox
-- KEYS[8] deadlines
-- KEYS[9] workers
-- KEYS[10] lock   of the worker to reap
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] released channel
-- ARGV[3] control channel
-- ARGV[4] worker   to reap
-- ARGV[5] limit   jobs
-- Returns {code, moved, left, other, other_ms}
--   code: 0 nothing to reap, 1 reaped (left > 0: call again), 2 its lock has not ended (left = ms until it may)
--   other, other_ms: the worker whose lock ends next, and in how long (0, 0: none)
-- Errors none
-- Publishes `fenced` to the worker, `reaping` or `reaped` on the control channel, an `add` frame for each job that
--   went on, `released` for each that was deleted

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
K.deadlines, K.workers, K.lock = KEYS[8], KEYS[9], KEYS[10]
K.inbox_channel, K.released_channel, K.control_channel = ARGV[1], ARGV[2], ARGV[3]
local worker, limit = ARGV[4], tonumber(ARGV[5])

local deadline = tonumber(redis.call('ZSCORE', K.deadlines, worker) or '-1')
local other, other_ms = earliest_but(worker)
if deadline < 0 then
  return { 0, 0, 0, other, other_ms }
end
local locked = redis.call('EXISTS', K.lock) == 1
if locked or now_ms < deadline then
  return { 2, 0, math.max(deadline - now_ms, 1), other, other_ms }
end

if redis.call('HDEL', K.workers, worker) == 1 then
  redis.call('ZREM', K.load, worker)
  send(worker, tick(), { 0, 0, 0, FENCED })
  sent[worker] = nil
end
redis.call('HDEL', K.inbox, worker) -- in each batch: a delete between two of them has put it back
local moved, left = evict(worker, limit)
if left == 0 then
  redis.call('ZREM', K.deadlines, worker)
end
announce(left == 0 and REAPED or REAPING, worker)

commit()
return { 1, moved, left, other, other_ms }
