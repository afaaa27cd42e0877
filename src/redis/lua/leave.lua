-- leave: a worker that holds nothing any more goes, and what the server still counts as its own moves on.
--
-- Like reap in batches, and dead from the first one on, but asked for by the worker itself: its lock need not end.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] assigned
-- KEYS[5] pending
-- KEYS[6] load
-- KEYS[7] inbox
-- KEYS[8] terms
-- KEYS[9] crashes
-- KEYS[10] watch
-- KEYS[11] changes
-- KEYS[12] deadlines
-- KEYS[13] workers
-- KEYS[14] lock   of this worker
-- KEYS[15] meta
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] released channel
-- ARGV[3] control channel
-- ARGV[4] worker
-- ARGV[5] limit   jobs
-- ARGV[6] incarnation
-- ARGV[7] token   as in `reserve`
-- Returns {code, moved, left}: code 1 left (left > 0: call again), 0 was no member any more
-- Errors none
-- Publishes `left` on the control channel, an `add` frame for each job that went on, `released` for each that was deleted

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.crashes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.watch, K.changes, K.deadlines, K.workers, K.lock, K.meta =
  KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
K.inbox_channel, K.released_channel, K.control_channel = ARGV[1], ARGV[2], ARGV[3]
local worker, limit, incarnation, token = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
demand_push()

if redis.call('HGET', K.meta, 'incarnation') ~= incarnation or not redis.call('ZSCORE', K.deadlines, worker) then
  return { 0, 0, 0 }
end
if redis.call('HEXISTS', K.workers, worker) == 1 and not is_member(worker, token) then
  return { 0, 0, 0 } -- from its first call on nobody has the number
end

local member = redis.call('HDEL', K.workers, worker) == 1
if redis.call('HDEL', K.inbox, worker) == 1 and member then -- who only reserved its number was no worker yet
  note(WORKER_LEFT, tonumber(worker))
end
dismiss(worker)
local moved, left = evict(worker, limit)
if left == 0 then
  redis.call('ZREM', K.deadlines, worker)
  forget(worker)
  announce(LEFT, worker)
  redis.call('DEL', K.lock)
end

conclude()
return { 1, moved, left }
