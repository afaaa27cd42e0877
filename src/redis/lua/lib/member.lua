-- member: a worker comes by its name, is given jobs, is given none, and is gone. Needs terms.

-- What is kept of a worker in {p}:terms beside its terms and its name.
local KEPT = { ':ttl', ':order', ':moving', ':handed', ':blame', ':ended' }

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
    redis.call('ZADD', K.load, load_with(terms, redis.call('ZCOUNT', K.assigned, low, high)), worker)
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
