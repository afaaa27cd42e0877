-- survey: the cluster in numbers, and whose lock ends first. A master's heartbeat; reads only.
--
-- KEYS[1] meta
-- KEYS[2] rev
-- KEYS[3] owner
-- KEYS[4] pending
-- KEYS[5] workers
-- KEYS[6] deadlines
-- KEYS[7] load
-- KEYS[8] quarantine
-- Returns {1, revision, lifted, jobs, pending, workers, other, other_ms, waiting, quarantined}; other, other_ms,
--   waiting as in `beat`
-- Errors none
-- Publishes nothing

K.meta, K.rev, K.owner, K.pending, K.workers, K.deadlines, K.load, K.quarantine =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]

local other, other_ms = earliest_but('')
local pending = redis.call('ZCARD', K.pending)
return { 1, tonumber(redis.call('GET', K.rev) or '0'), tonumber(redis.call('HGET', K.meta, 'lifted') or '0'),
  redis.call('HLEN', K.owner), pending, redis.call('HLEN', K.workers), other, other_ms,
  has_room() and pending or 0, redis.call('ZCARD', K.quarantine) }
