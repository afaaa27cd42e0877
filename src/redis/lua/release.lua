-- release: a worker has let go of a batch of jobs. A deleted one is gone; any other goes on to the least loaded, its
-- owner counting as one that holds it still. Then as many jobs that wait are given out: room is never left beside one.
--
-- Idempotent by the grant: what is not this worker's by that grant is left alone, and said.
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
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] released channel
-- ARGV[3] worker
-- ARGV[4...] job, grant   pairs
-- Returns {n, code, ...}, one code a pair: 1 released, 0 not this worker's by that grant
-- Errors none
-- Publishes an `add` frame for each job that went on or was given out, `released` for each that was deleted

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.crashes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.watch, K.changes = KEYS[10], KEYS[11]
K.inbox_channel, K.released_channel = ARGV[1], ARGV[2]
local worker = ARGV[3]
demand_push()

local reply = { (#ARGV - 3) / 2 }
for i = 4, #ARGV, 2 do
  local job = ARGV[i]
  local state, holder, grant, born, changed = owner_of(job)
  local code = 0
  if holder == worker and grant == ARGV[i + 1] then
    let_go(job, state, worker, grant, born, changed)
    code = 1
  end
  reply[#reply + 1] = code
end
fill(reply[1])

conclude()
return reply
