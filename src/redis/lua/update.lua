-- update: a batch of new payloads. The owner of each gets it; whoever gets the job later has it too.
--
-- A job that is on its way to another worker is updated for that one: its owner is told nothing more.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] inbox
-- KEYS[5] watch
-- KEYS[6] changes
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] not_after   us by the server's clock
-- ARGV[3...] job, payload   pairs
-- Returns {n, code, ...}: 0 unknown, or deleted; 1 its owner is told; 2 stored for its next owner; 3 left alone, as its
--   record cannot be read
-- Errors LATE <now_us>: the server's clock is past not_after; nothing was done
-- Publishes an `update` frame to the owner of each job that is held

K.rev, K.jobs, K.owner, K.inbox, K.watch, K.changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
K.inbox_channel = ARGV[1]
local not_after = tonumber(ARGV[2])
demand_push()

if now_us > not_after then
  return redis.error_reply('LATE ' .. int(now_us))
end

local reply = { (#ARGV - 2) / 2 }
for i = 3, #ARGV, 2 do
  local job, payload = ARGV[i], ARGV[i + 1]
  local state, worker, grant, born = owner_of(job)
  local code = 0
  if state == '?' then
    code = 3
  elseif state and born ~= '0' then
    local rev = tick()
    redis.call('HSET', K.jobs, job, payload)
    write_owner(job, state, worker, grant, born, int(rev))
    note(JOB_UPDATED, job, nil, rev)
    code = 2
    if state == 'a' then
      send(worker, rev, { 0, 0, 0, UPDATE, job, tonumber(grant) }, payload)
      code = 1
    end
  end
  reply[#reply + 1] = code
end

commit()
return reply
