-- find: one job, who holds it, and its payload. Reads only.
--
-- KEYS[1] meta
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] crashes
-- ARGV[1] job
-- Returns {lifted, record, payload, crashes}, the record and the crashes as they are stored; {lifted} where there is no such job
--   (a job that was deleted and is still held has an empty payload)
-- Errors none
-- Publishes nothing

K.meta, K.jobs, K.owner, K.crashes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job = ARGV[1]

local lifted = tonumber(redis.call('HGET', K.meta, 'lifted') or '0')
local record = redis.call('HGET', K.owner, job)
if not record then
  return { lifted }
end
return { lifted, record, redis.call('HGET', K.jobs, job) or '', redis.call('HGET', K.crashes, job) or '' }
