-- add: a batch of jobs. Each goes to the least loaded worker, whose inbox gets it, or waits.
--
-- An id that is there already is left alone. One that was deleted, but whose owner still lets go, waits for that.
-- `not_after` makes a late copy harmless: what the caller gave up on is never carried out later.
-- Not done on purpose: looking whether the worker's lock has ended. A dead worker's jobs move at its reap. Nor is a
-- worker's rate heeded: that is for jobs that move by the thousand.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] assigned
-- KEYS[5] pending
-- KEYS[6] load
-- KEYS[7] inbox
-- KEYS[8] terms
-- KEYS[9] watch
-- KEYS[10] changes
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] not_after   us by the server's clock
-- ARGV[3] most   jobs that the cluster may have
-- ARGV[4...] job, payload   pairs
-- Returns {n, code, born, code, born, ...}: 0 exists, 1 assigned, 2 pending, 3 waits for a release, 4 left alone, as
--   its record cannot be read (born 0); born: its add's revision
-- Errors LATE <now_us>: the server's clock is past not_after; LIMIT <jobs>: there would be more than `most`; either way
--   nothing was done
-- Publishes an `add` frame for each assigned job

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.watch =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.changes = KEYS[10]
K.inbox_channel = ARGV[1]
local not_after, most = tonumber(ARGV[2]), tonumber(ARGV[3])
demand_push()

if now_us > not_after then
  return redis.error_reply('LATE ' .. int(now_us))
end
local count = redis.call('HLEN', K.owner)
if count + (#ARGV - 3) / 2 > most then
  local new = 0
  for i = 4, #ARGV, 2 do
    new = new + 1 - redis.call('HEXISTS', K.owner, ARGV[i])
  end
  if new > 0 and count + new > most then
    return redis.error_reply('LIMIT ' .. int(count))
  end
end

local reply = { (#ARGV - 3) / 2 }
for i = 4, #ARGV, 2 do
  local job, payload = ARGV[i], ARGV[i + 1]
  local state, holder, grant, born = owner_of(job)
  local code, rev = 0, nil
  if not state then
    rev = tick()
    born = int(rev)
    redis.call('HSET', K.jobs, job, payload)
    note(JOB_ADDED, job, nil, rev)
    local worker, load, terms = choose()
    if worker then
      -- Each change that is told has a revision of its own.
      local grant = is_watched() and tick() or rev
      hand(job, born, nil, payload, grant, worker, load, terms)
      code = 1
    else
      wait(job, born, nil)
      code = 2
    end
  elseif state == 'r' and born == '0' then
    rev = tick()
    born = int(rev)
    redis.call('HSET', K.jobs, job, payload)
    note(JOB_ADDED, job, nil, rev)
    write_owner(job, 'r', holder, grant, born, nil)
    code = 3
  elseif state == '?' then
    code = 4
  end
  reply[#reply + 1], reply[#reply + 2] = code, rev or tonumber(born or 0)
end

settle()
return reply
