-- placement: who gets a job that was held or has waited, and what follows when one is let go of. Needs member, look,
-- give and suspicion.

local AT_ONCE = 100 -- ms of a worker's rate that may be handed to it at once

-- worker -> when (ms) it has worked off what it was handed, at its rate
local busy = {}
-- In how many ms the first of those that were passed over for their rate may be handed more.
local pause

local function is_ready(worker, _, terms)
  if terms.rate == 0 then
    return true
  end
  local at = math.max(busy[worker] or number_of(redis.call('HGET', K.terms, worker .. ':handed')), now_ms)
  busy[worker] = at
  if at - now_ms <= AT_ONCE then
    return true
  end
  pause = math.min(pause or math.huge, at - AT_ONCE - now_ms)
  return false
end

-- How suspect a job is that everybody has: whoever was looked at for such a one, in this script, had one already.
local common = 0

-- The least loaded worker that takes more by its rate; rather one that has no job that is as suspect, so that the next
-- crash tells them apart.
local function choose_next(suspicion)
  if suspicion <= common then
    return choose(is_ready)
  end
  local second
  local worker, load, terms = choose(function(worker, load, terms)
    if not is_ready(worker, load, terms) then
      return false
    end
    if blame_now(worker)[1] >= suspicion then
      second = second or { worker, load, terms }
      return false
    end
    return true
  end)
  if not worker and second then
    common = suspicion
    return second[1], second[2], second[3]
  end
  return worker, load, terms
end

-- Who came after this worker under the same name, if it has room. Not paced: what waits for it would go to others.
local heirs = {}
local function heir_of(worker)
  local heir = heirs[worker]
  if heir == nil then
    local name = name_of(worker)
    heir = name and named(name) or false
    heirs[worker] = heir
  end
  if heir and heir ~= worker then
    local load, terms = load_of(heir) or FULL, terms_of(heir)
    if load < FULL and terms then
      return heir, load, terms
    end
  end
end

-- Gives a job that was held, or has waited, to somebody, at the pace that its new owner takes; or lets it wait.
-- `from`: who had it. Returns whether it was given.
local function pass_on(job, born, changed, from)
  local suspicion = suspicion_of(job)
  local worker, load, terms
  if from and suspicion < 2 then -- what may have killed its worker twice goes where others have it not
    worker, load, terms = heir_of(from)
  end
  if not worker then
    worker, load, terms = choose_next(suspicion)
  end
  if not worker then
    wait(job, born, changed)
    return false
  end
  hand(job, born, changed, redis.call('HGET', K.jobs, job) or '', tick(), worker, load, terms)
  note_suspect(worker, suspicion)
  if terms.rate > 0 then
    busy[worker] = math.max(busy[worker] or 0, now_ms) + 1000 / terms.rate
    redis.call('HSET', K.terms, worker .. ':handed', int(busy[worker]))
  end
  return true
end

-- Takes a job from its worker: gone if it was deleted, else on to the next one.
-- The caller has seen that (worker, grant) is the record's. Whoever waits for the release is told.
local function let_go(job, state, worker, grant, born, changed)
  note(JOB_RELEASED, job, worker)
  if state == 'm' then
    set_moving(worker, moving_of(worker) - 1)
  end
  if state == 'r' then
    redis.call('SPUBLISH', K.released_channel, cmsgpack.pack({ FRAME, job, tonumber(grant) }))
  end
  if born == '0' then
    redis.call('HDEL', K.owner, job)
  end
  if born == '0' or not pass_on(job, born, changed, worker) then
    redis.call('ZREM', K.assigned, job)
  end
  -- Only now: of two that hold equally much after it, the job is not to go back to the one that gave it up.
  local terms = terms_of(worker)
  local load = terms and load_of(worker)
  if load then
    count_job(worker, load, terms, -1)
  end
end

-- Gives out waiting jobs, the oldest first, as long as somebody has room. Returns how many.
local function fill(limit)
  local placed = 0
  write_loads()
  if not has_room() then
    return placed
  end
  for _, job in ipairs(redis.call('ZRANGE', K.pending, 0, limit - 1)) do
    local state, _, _, born, changed = owner_of(job)
    redis.call('ZREM', K.pending, job)
    if state == 'p' then
      if not pass_on(job, born, changed) then
        break
      end
      placed = placed + 1
    end
  end
  return placed
end

-- Moves at most `limit` of a worker's jobs on. `judge(job, grant, born, changed)`, if given, says of each whether it was
-- set aside. Returns how many it dealt with and how many are left.
local function evict(worker, limit, judge)
  local low, high = range_of(worker)
  local jobs = redis.call('ZRANGE', K.assigned, low, high, 'BYSCORE', 'LIMIT', 0, limit)
  for _, job in ipairs(jobs) do
    local state, holder, grant, born, changed = owner_of(job)
    if holder ~= worker then
      redis.call('ZREM', K.assigned, job) -- an orphan of the index: the record decides
    elseif state == 'r' or not judge or not judge(job, grant, born, changed) then
      let_go(job, state, worker, grant, born, changed)
    end
  end
  return #jobs, redis.call('ZCOUNT', K.assigned, low, high)
end

-- The last thing that a script does which passes jobs on.
local function conclude()
  write_blames()
  settle()
end
