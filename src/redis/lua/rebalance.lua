-- rebalance: asks the most loaded workers to give up a part of what they hold above their share. One step.
--
-- The jobs stay where they are until their owners let go of them, and then go to the least loaded, as any job does. A
-- worker that has jobs on their way is asked for nothing more. Nobody is asked as long as the difference is within
-- the hysteresis or what one job makes, or who is given jobs has changed lately: a worker that is replaced is to be
-- back before its part is given away. A worker above its capacity gives what is above it, at once.
--
-- KEYS[1] rev
-- KEYS[2] owner
-- KEYS[3] assigned
-- KEYS[4] load
-- KEYS[5] inbox
-- KEYS[6] terms
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] share   of the difference that moves in one step, in thousandths
-- ARGV[3] hysteresis   of the fair share that is let be, in thousandths
-- ARGV[4] delay   ms
-- ARGV[5] limit   jobs
-- Returns {marked}: jobs that are to move. As many as the limit: call again
-- Errors none
-- Publishes a `delete` frame for each job that is to move

K.rev, K.owner, K.assigned, K.load, K.inbox, K.terms = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
K.inbox_channel = ARGV[1]
local share, hysteresis = tonumber(ARGV[2]) / 1000, tonumber(ARGV[3]) / 1000
local delay, limit = tonumber(ARGV[4]), tonumber(ARGV[5])

local GIVERS = 16

local first = redis.call('ZRANGE', K.load, 0, 0, 'WITHSCORES')
local taker = first[1] and terms_of(first[1])
if not taker or tonumber(first[2]) >= FULL then
  return { 0 }
end
local quiet = now_ms - tonumber(redis.call('HGET', K.terms, 'changed') or '0') >= delay
local held = held_by(taker, tonumber(first[2]))
local level = held / taker.weight

-- The most loaded, those without room and those with.
local givers, seen = {}, { [first[1]] = true }
local sum, weights = held, taker.weight
local tops = {
  redis.call('ZRANGE', K.load, 0, GIVERS - 1, 'REV', 'WITHSCORES'),
  redis.call('ZRANGE', K.load, '(' .. int(FULL), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, GIVERS, 'WITHSCORES'),
}
for _, rows in ipairs(tops) do
  for i = 1, #rows, 2 do
    local worker, terms = rows[i], terms_of(rows[i])
    if terms and not seen[worker] then
      seen[worker] = true
      local giver = { worker = worker, terms = terms, held = held_by(terms, tonumber(rows[i + 1])) }
      giver.level = giver.held / terms.weight
      giver.above = terms.capacity > 0 and giver.held - terms.capacity or 0
      giver.moving = tonumber(redis.call('HGET', K.terms, worker .. ':moving') or '0')
      if giver.level > level then
        sum, weights = sum + giver.held - giver.moving, weights + terms.weight
      end
      givers[#givers + 1] = giver
    end
  end
end
table.sort(givers, function(a, b) return a.level > b.level end)

local room = taker.capacity > 0 and math.min(limit, taker.capacity - held) or limit
local fair = sum / weights
local missing = math.ceil(fair * taker.weight - held)

local marked = 0
local function take(giver, count)
  local low, high = range_of(giver.worker)
  local taken = 0
  for _, job in ipairs(redis.call('ZRANGE', K.assigned, low, high, 'BYSCORE', 'LIMIT', 0, count)) do
    local state, holder, grant, born, changed = owner_of(job)
    if state == 'a' and holder == giver.worker then
      write_owner(job, 'm', holder, grant, born, changed)
      send(holder, tick(), { 0, 0, 0, DELETE, job, tonumber(grant), REBALANCED })
      taken = taken + 1
    end
  end
  if taken > 0 then
    redis.call('HSET', K.terms, giver.worker .. ':moving', taken)
  end
  marked = marked + taken
end

for _, giver in ipairs(givers) do
  local weight = giver.terms.weight
  local worth = math.max(1 / weight + 1 / taker.weight, hysteresis * fair)
  local give = 0
  if giver.moving > 0 then
    give = 0
  elseif giver.above > 0 then
    give = giver.above
  elseif quiet and giver.level - level >= worth then
    give = math.max(1, math.ceil((giver.held - fair * weight) * share))
    give = math.min(give, missing - marked)
  end
  give = math.min(give, room - marked)
  if give > 0 then
    take(giver, give)
  end
end

commit()
return { marked }
