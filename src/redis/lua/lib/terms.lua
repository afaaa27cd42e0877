-- terms: on what terms a worker takes part, and its load by them. Needs base.
--
-- {p}:load has each worker that is given jobs, by load = jobs held / weight, and FULL on top if it holds as many as
-- it can. The number of jobs is found again from the load, so that nothing adds up to an error.

-- worker -> its terms, or false if it is given nothing
local known = {}

local function terms_of(worker)
  local terms = known[worker]
  if terms == nil then
    local weight, capacity, rate =
      string.match(redis.call('HGET', K.terms, worker) or '', '^([1-9]%d*) (%d+) (%d+)$')
    local sane = weight and #weight <= 10 and #capacity <= 10 and #rate <= 10
    terms = sane and { weight = tonumber(weight), capacity = tonumber(capacity), rate = tonumber(rate) } or false
    known[worker] = terms
  end
  return terms
end

local function held_by(terms, load)
  return math.floor((load >= FULL and load - FULL or load) * terms.weight + 0.5)
end

local function load_with(terms, held)
  local load = held / terms.weight
  return terms.capacity > 0 and held >= terms.capacity and load + FULL or load
end

-- How many of its jobs are to move.
local function moving_of(worker)
  return number_of(redis.call('HGET', K.terms, worker .. ':moving'))
end

local function set_moving(worker, count)
  if count > 0 then
    redis.call('HSET', K.terms, worker .. ':moving', int(count))
  else
    redis.call('HDEL', K.terms, worker .. ':moving')
  end
end
