-- requeue: gives jobs that were quarantined another chance. What they were suspected of is forgotten.
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
-- KEYS[12] quarantine
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2...] job
-- Returns {n, code, ...}: 1 it is assigned, or waits for a worker; 0 it was not in quarantine
-- Errors none
-- Publishes an `add` frame for each job that was assigned

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.crashes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.watch, K.changes, K.quarantine = KEYS[10], KEYS[11], KEYS[12]
K.inbox_channel = ARGV[1]
demand_push()

local reply = { #ARGV - 1 }
for i = 2, #ARGV do
  local job = ARGV[i]
  local state, _, _, born, changed = owner_of(job)
  local code = 0
  if state == 'q' then
    redis.call('ZREM', K.quarantine, job)
    redis.call('HDEL', K.crashes, job)
    note(JOB_REQUEUED, job)
    pass_on(job, born, changed)
    code = 1
  end
  reply[#reply + 1] = code
end

conclude()
return reply
