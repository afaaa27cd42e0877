-- reserve: gives out a worker's number, never twice in a cluster's life.
-- The number is a member without jobs until `join`; one that never joins is reaped like a dead worker.
--
-- A number that is still somebody's is passed over: a cluster that lost its meta key counts from 1 again, and its
-- old workers' jobs must not be taken for the new one's.
--
-- Only the living are counted: whoever comes in place of the dead must get in to reap them.
--
-- Run twice it wastes a number and nothing more.
--
-- KEYS[1] meta
-- KEYS[2] workers
-- KEYS[3] deadlines
-- ARGV[1] incarnation   the cluster that the caller means
-- ARGV[2] ttl   ms until the reservation lapses
-- ARGV[3] info   what the worker says of itself: a MessagePack map, opaque here
-- ARGV[4] most   workers that the cluster may have, this one included
-- ARGV[5] token   random: what the worker shows from now on, beside its number
-- Returns {1, number}; {0, 3} where the cluster is another one now; {0, 4} where there are as many workers already
-- Errors none
-- Publishes nothing

K.meta, K.workers, K.deadlines = KEYS[1], KEYS[2], KEYS[3]
local incarnation, ttl, info, most = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local token = ARGV[5]

if redis.call('HGET', K.meta, 'incarnation') ~= incarnation then
  return { 0, 3 }
end
local living = redis.call('HLEN', K.workers)
for _, worker in ipairs(redis.call('ZRANGE', K.deadlines, '-inf', int(now_ms), 'BYSCORE')) do
  living = living - redis.call('HEXISTS', K.workers, worker)
end
if living >= most then
  return { 0, 4 }
end

local number
repeat
  number = redis.call('HINCRBY', K.meta, 'last_worker', 1)
until not redis.call('ZSCORE', K.deadlines, number)
redis.call('HSET', K.workers, number, int(now_ms) .. ' ' .. token .. ' ' .. info)
redis.call('ZADD', K.deadlines, int(now_ms + ttl), number)

return { 1, number }
