-- join: a worker with a reserved number, whose subscriptions are confirmed, takes part.
-- It starts empty and asks `sync` for its first snapshot: there is one road to a snapshot.
--
-- Run twice it renews the lock and nothing more. A number that was reaped or has left does not come back.
--
-- KEYS[1] meta
-- KEYS[2] rev
-- KEYS[3] workers
-- KEYS[4] deadlines
-- KEYS[5] load
-- KEYS[6] inbox
-- KEYS[7] pending
-- KEYS[8] lock   of this worker
-- ARGV[1] incarnation
-- ARGV[2] worker   its number
-- ARGV[3] ttl   ms
-- Returns {1, pending, due worker, ...} with at most 16 workers whose lock has ended; the caller reaps them.
--   {0, why} where it may not: 1 the number is dead, 3 the cluster is another one now
-- Errors none
-- Publishes nothing

K.meta, K.rev, K.workers, K.deadlines, K.load = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
K.inbox, K.pending, K.lock = KEYS[6], KEYS[7], KEYS[8]
local incarnation, worker, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HGET', K.meta, 'incarnation') ~= incarnation then
  return { 0, 3 }
end
local deadline = tonumber(redis.call('ZSCORE', K.deadlines, worker) or '0')
if redis.call('HEXISTS', K.workers, worker) == 0 or now_ms >= deadline then
  return { 0, 1 }
end

redis.call('SET', K.lock, incarnation, 'PX', ttl)
redis.call('ZADD', K.deadlines, int(now_ms + ttl), worker)
if redis.call('HEXISTS', K.inbox, worker) == 0 then
  -- The chain of frames starts at a revision of its own, so that no older number's chain fits it.
  local start = int(tick())
  redis.call('HSET', K.inbox, worker, start)
  redis.call('SET', K.rev, start)
  redis.call('ZADD', K.load, 0, worker)
end

local reply = { 1, redis.call('ZCARD', K.pending) }
for _, due in ipairs(redis.call('ZRANGE', K.deadlines, 0, int(now_ms), 'BYSCORE', 'LIMIT', 0, 16)) do
  reply[#reply + 1] = tonumber(due)
end
return reply
