-- rebalance: asks the most loaded workers to give up a part of what they hold above their share. One step.
--
-- The jobs stay where they are until their owners let go of them, and then go to the least loaded, as any job does. No
-- more than the part is on its way at once. Nobody is asked as long as the difference is within
-- the hysteresis or what one job makes, or who is given jobs has changed lately: a worker that is replaced is to be
-- back before its part is given away. A worker above its capacity gives what is above it, at once.
--
-- KEYS[1] rev
-- KEYS[2] owner
-- KEYS[3] assigned
-- KEYS[4] load
-- KEYS[5] inbox
-- KEYS[6] terms
-- KEYS[7] watch
-- KEYS[8] changes
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] share   of what a worker holds above its fair share that may be on its way at once, in thousandths
-- ARGV[3] hysteresis   of the fair share that is let be, in thousandths
-- ARGV[4] delay   ms
-- ARGV[5] limit   jobs
-- Returns {marked}: jobs that are to move. As many as the limit: call again
-- Errors none
-- Publishes a `delete` frame for each job that is to move

K.rev, K.owner, K.assigned, K.load, K.inbox, K.terms, K.watch, K.changes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
K.inbox_channel = ARGV[1]
local share, hysteresis = tonumber(ARGV[2]) / 1000, tonumber(ARGV[3]) / 1000
local delay, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
demand_push()

local takers, givers = least_loaded(), most_loaded()
local quiet = now_ms - number_of(redis.call('HGET', K.terms, 'changed')) >= delay

-- What is on its way already goes to the least loaded too.
local coming, room, marked = 0, 0, 0
for _, giver in ipairs(givers) do
  coming = coming + giver.moving
end
for _, taker in ipairs(takers) do
  room = room + room_of(taker)
end

local function mark(giver, count)
  local low, high = range_of(giver.worker)
  -- Those before are on their way already, more or less; and some may be deleted.
  local jobs = redis.call('ZRANGE', K.assigned, low, high, 'BYSCORE', 'LIMIT', giver.moving, 2 * count)
  for _, job in ipairs(jobs) do
    local state, holder, grant, born, changed = owner_of(job)
    if state == 'a' and holder == giver.worker and count > 0 then
      write_owner(job, 'm', holder, grant, born, changed)
      note(JOB_MOVING, job)
      send(holder, tick(), { 0, 0, 0, DELETE, job, tonumber(grant), REBALANCED })
      giver.moving, marked, count = giver.moving + 1, marked + 1, count - 1
    end
  end
  set_moving(giver.worker, giver.moving)
end

for _, giver in ipairs(givers) do
  local above = giver.capacity > 0 and giver.held - giver.capacity - giver.moving or 0
  local count = math.min(above, room - coming - marked, limit - marked)
  if count > 0 then
    mark(giver, count)
  end
end

for _, taker in ipairs(quiet and takers or {}) do
  local held, weight = taker.held, taker.weight
  for _, giver in ipairs(givers) do
    if giver.level > taker.level then
      held, weight = held + giver.held, weight + giver.weight
    end
  end
  local fair = held / weight
  local missing = math.min(math.ceil(fair * taker.weight - taker.held), room_of(taker)) - coming
  for _, giver in ipairs(givers) do
    local worth = math.max(1 / giver.weight + 1 / taker.weight, hysteresis * fair)
    -- Who is not above its share gives only if nobody else does: those above may be too light to give a whole job.
    local least = coming + marked == 0 and 1 or 0
    local spare = math.max(math.ceil((giver.held - fair * giver.weight) * share), least) - giver.moving
    local count = math.min(spare, missing - marked, limit - marked)
    if giver.level - taker.level >= worth and count > 0 then
      mark(giver, count)
    end
  end
end

commit()
return { marked }
