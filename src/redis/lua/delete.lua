-- delete: a batch of jobs. A waiting one is gone at once; a held one is marked, and gone when its owner lets go.
--
-- `born` names the life that is meant, so that a late delete cannot end a job that was added again; 0 means
-- whatever is there now, and then `not_after` guards it.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] pending
-- KEYS[5] inbox
-- KEYS[6] terms
-- KEYS[7] crashes
-- KEYS[8] quarantine
-- KEYS[9] watch
-- KEYS[10] changes
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] not_after   us by the server's clock
-- ARGV[3...] job, born   pairs
-- Returns {n, code, worker, grant, ...}: 0 unknown, 1 gone, 2 its owner (worker, grant) is letting go, 3 left alone,
--   as its record cannot be read
-- Errors LATE <now_us>: the server's clock is past not_after; nothing was done
-- Publishes a `delete` frame to the owner of each job that is now marked

K.rev, K.jobs, K.owner, K.pending, K.inbox, K.terms, K.crashes, K.quarantine, K.watch =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.changes = KEYS[10]
K.inbox_channel = ARGV[1]
local not_after = tonumber(ARGV[2])
demand_push()

if now_us > not_after then
  return redis.error_reply('LATE ' .. int(now_us))
end

local reply = { (#ARGV - 2) / 2 }
for i = 3, #ARGV, 2 do
  local job, meant = ARGV[i], ARGV[i + 1]
  local state, worker, grant, born = owner_of(job)
  local code = 0
  if state == '?' then
    code = 3
  elseif state == 'r' and born == '0' then
    code = 2 -- deleted already
  elseif state and (meant == '0' or meant == born) then
    redis.call('HDEL', K.jobs, job)
    redis.call('HDEL', K.crashes, job)
    note(JOB_DELETED, job)
    if state == 'p' or state == 'q' then
      redis.call('HDEL', K.owner, job)
      redis.call('ZREM', K.pending, job)
      redis.call('ZREM', K.quarantine, job)
      code = 1
    else
      write_owner(job, 'r', worker, grant, '0')
      code = 2
    end
    if state == 'a' then
      send(worker, tick(), { 0, 0, 0, DELETE, job, tonumber(grant), REMOVED })
    elseif state == 'm' then
      set_moving(worker, moving_of(worker) - 1)
    end
  end
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = code, tonumber(worker or 0), tonumber(grant or 0)
end

commit()
return reply
