-- place: gives waiting jobs, the oldest first, to the least loaded workers.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] assigned
-- KEYS[5] pending
-- KEYS[6] load
-- KEYS[7] inbox
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] limit   jobs
-- Returns {placed, waiting} with waiting = 0 where no worker has room
-- Errors none
-- Publishes an `add` frame for each job placed

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
K.inbox_channel = ARGV[1]
local limit = tonumber(ARGV[2])

if redis.call('ZCARD', K.load) == 0 then
  return { 0, 0 }
end
local jobs = redis.call('ZRANGE', K.pending, 0, limit - 1)
for _, job in ipairs(jobs) do
  local state, _, _, born = owner_of(job)
  redis.call('ZREM', K.pending, job)
  if state == 'p' then
    assign(job, born, redis.call('HGET', K.jobs, job) or '')
  end
end

commit()
return { #jobs, redis.call('ZCARD', K.pending) }
