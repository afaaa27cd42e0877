-- terms: on what terms a worker takes part, its load by them, and its name. Needs base.
--
-- {p}:load has each worker that is given jobs, by load = jobs held / weight, and FULL on top if it holds as many as
-- it can. The number of jobs is found again from the load, so that nothing adds up to an error.

-- What is kept of a worker in {p}:terms beside its terms and its name.
local KEPT = { ':ttl', ':order', ':moving', ':handed', ':blame', ':ended' }

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

local function load_of(terms, held)
  local load = held / terms.weight
  return terms.capacity > 0 and held >= terms.capacity and load + FULL or load
end

local function held_by(terms, load)
  return math.floor((load >= FULL and load - FULL or load) * terms.weight + 0.5)
end

local function set_held(worker, terms, held)
  redis.call('ZADD', K.load, string.format('%.17g', load_of(terms, held)), worker)
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

-- Its name, and for how long its jobs are kept for the next of that name; nil if it has none.
local function name_of(worker)
  local grace, name = string.match(redis.call('HGET', K.terms, worker .. ':name') or '', '^(%d+) (.+)$')
  return name, tonumber(grace)
end

-- The last worker that came by this name, false if there is none.
local function named(name)
  return redis.call('HGET', K.terms, 'name:' .. name)
end

-- Who is given jobs has changed: rebalancing waits until it has been quiet for a while.
local function note_change()
  redis.call('HSET', K.terms, 'changed', int(now_ms))
end

-- It is given jobs from now on, by these terms ("<weight> <capacity> <rate>").
local function admit(worker, text)
  redis.call('HSET', K.terms, worker, text)
  known[worker] = nil
  local terms = terms_of(worker)
  local low, high = range_of(worker)
  if terms then
    set_held(worker, terms, redis.call('ZCOUNT', K.assigned, low, high))
  end
  note_change()
end

-- It is given nothing from now on.
local function dismiss(worker)
  known[worker] = false
  if redis.call('HDEL', K.terms, worker) + redis.call('ZREM', K.load, worker) > 0 then
    note_change()
  end
end

-- It is gone, and nothing of it is needed any more.
local function forget(worker)
  local name = name_of(worker)
  if name and named(name) == worker then
    redis.call('HDEL', K.terms, 'name:' .. name)
  end
  redis.call('HDEL', K.terms, worker .. ':name')
  for _, suffix in ipairs(KEPT) do
    redis.call('HDEL', K.terms, worker .. suffix)
  end
end
