-- open: the first thing that anybody does, and again whenever the server may be another one.
-- Makes the cluster where there is none. Sees by the server's run id that the server was restarted or
-- replaced, and then lifts: the revision goes past the clock, and every older assignment counts as
-- granted anew at that revision (epoch = max(grant, lifted)), since newer grants may have been lost.
-- The workers' numbers jump too: one whose reservation was lost is not to be given to another. And each lock is
-- extended, as the latest heartbeat may have been lost: whoever relies on one would be passed over while it does.
--
-- Idempotent by the run id: the second caller changes nothing.
--
-- KEYS[1] meta
-- KEYS[2] rev
-- KEYS[3] deadlines
-- KEYS[4] terms
-- KEYS[5] workers
-- ARGV[1] protocol   the version of the protocol that the caller speaks
-- ARGV[2] incarnation   what a new cluster is to be called: random
-- ARGV[3] run id   the server's, from INFO
-- Returns {1, protocol, lifted, now_us, incarnation}; the caller refuses a protocol that it does not speak.
-- Errors none
-- Publishes nothing

K.meta, K.rev, K.deadlines, K.terms, K.workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local protocol, incarnation, run_id = ARGV[1], ARGV[2], ARGV[3]
local JUMP = 1024 -- more numbers than a replica can lag behind

local meta = redis.call('HMGET', K.meta, 'protocol', 'incarnation', 'run_id', 'lifted')

if not meta[1] then
  meta = { protocol, incarnation, run_id, '0' }
  redis.call('HSET', K.meta, 'protocol', protocol, 'partitions', 1, 'incarnation', incarnation, 'run_id', run_id,
    'lifted', 0, 'last_worker', 0)
elseif meta[1] == protocol and meta[3] ~= run_id then
  meta[4] = int(tick())
  redis.call('HINCRBY', K.meta, 'last_worker', JUMP)
  redis.call('HSET', K.meta, 'run_id', run_id, 'lifted', meta[4])
  redis.call('SET', K.rev, meta[4])
  for _, worker in ipairs(redis.call('ZRANGE', K.deadlines, 0, -1)) do
    if redis.call('HEXISTS', K.workers, worker) == 1 then
      local ttl = number_of(redis.call('HGET', K.terms, worker .. ':ttl'))
      redis.call('ZADD', K.deadlines, 'GT', int(now_ms + ttl), worker)
    end
  end
end

return { 1, tonumber(meta[1]), tonumber(meta[4] or '0'), now_us, meta[2] }
