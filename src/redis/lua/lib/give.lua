-- give: a job that nobody holds is given to the least loaded, or waits. Needs push and terms.

local LOOK_AT = 16 -- workers that are looked at for one job, where the first will not do

-- The least loaded workers as of now, the least first, as long as this script has looked at them. `last` is the end of
-- what was read, false if that was everybody: whoever comes after it may come after somebody who was not read.
local ranks, last
-- worker -> its load, where it is another one by now than in {p}:load. Written by settle().
local loads = {}

local function write_loads()
  for worker, load in pairs(loads) do
    redis.call('ZADD', K.load, load, worker)
  end
  loads = {}
end

local function load_of(worker)
  return loads[worker] or tonumber(redis.call('ZSCORE', K.load, worker))
end

local function is_before(a, b)
  return a.load < b.load or a.load == b.load and a.worker < b.worker
end

local function read_ranks(count)
  write_loads()
  local rows = redis.call('ZRANGE', K.load, '0', count - 1, 'WITHSCORES')
  ranks = {}
  for i = 1, #rows, 2 do
    ranks[#ranks + 1] = { worker = rows[i], load = tonumber(rows[i + 1]) }
  end
  local rank = ranks[count]
  last = rank and { worker = rank.worker, load = rank.load } or false
end

-- Puts a worker among those that are known where its load has it, if that is not behind all of them.
local function rank_again(worker, load)
  local rank
  for i = 1, #ranks do
    if ranks[i].worker == worker then
      rank = table.remove(ranks, i)
      break
    end
  end
  rank = rank or { worker = worker }
  rank.load = load
  if last and is_before(last, rank) then
    return
  end
  local at = 1
  while ranks[at] and is_before(ranks[at], rank) do
    at = at + 1
  end
  table.insert(ranks, at, rank)
end

-- It holds one job more, or one less.
local function count_job(worker, load, terms, change)
  load = load_with(terms, held_by(terms, load) + change)
  loads[worker] = load
  if ranks then
    rank_again(worker, load)
  end
end

-- The first worker that will do among those that were read; false as well if the first one left is without room.
local function choose_ranked(fits)
  for _, rank in ipairs(ranks or {}) do
    local worker, load = rank.worker, rank.load
    if load >= FULL then
      return false
    end
    local terms = terms_of(worker)
    if terms and (not fits or fits(worker, load, terms)) then
      return worker, load, terms
    end
  end
end

-- The least loaded worker with room; of those that `fits(worker, load, terms)`, if given.
local function choose(fits)
  local worker, load, terms = choose_ranked(fits)
  if worker == nil and not ranks then
    read_ranks(1)
    worker, load, terms = choose_ranked(fits)
  end
  if worker == nil and last then
    read_ranks(LOOK_AT)
    worker, load, terms = choose_ranked(fits)
  end
  return worker, load, terms
end

local function hand(job, born, changed, payload, grant, worker, load, terms)
  write_owner(job, 'a', worker, int(grant), born, changed)
  note(JOB_ASSIGNED, job, worker, grant)
  redis.call('ZADD', K.assigned, score_of(worker, grant), job)
  count_job(worker, load, terms, 1)
  send(worker, grant, { 0, 0, 0, ADD, job, tonumber(born) }, payload)
end

local function wait(job, born, changed)
  write_owner(job, 'p', '0', '0', born, changed)
  redis.call('ZADD', K.pending, born, job)
end

-- The last thing that a script does which gives jobs.
local function settle()
  write_loads()
  commit()
end
