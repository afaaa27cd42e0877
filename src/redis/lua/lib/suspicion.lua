-- suspicion: which job it was that killed its workers. Needs base.
--
-- Nobody knows. Suspect are the jobs that a worker was given within the window before its last heartbeat, or while the
-- next was not overdue (what came later was given to a dead one), and of these the ones that were suspected most
-- often before. So that the next crash tells them apart, they are given to workers that
-- have no job that is as suspect; and one that is the only suspect, and has been one often enough, is set aside.
--
-- {p}:crashes: job -> "<count> <worker>@<ms> ...", the last crashes that it is suspected of.
-- {p}:terms: "<worker>:blame" -> "<count> <jobs> <ms>": the most suspect jobs that it was given, how many, and when the
-- last of them; "<worker>:ended" -> "<ms> <count> <jobs>": when its lock ended, and what it is blamed on.

local HISTORY = 8 -- crashes of a job that are remembered
local FADES = 60000 -- ms after which a worker counts as having survived what it was given

-- job -> how many crashes it is suspected of
local suspicions = {}
local nobody -- is suspected of anything
local function suspicion_of(job)
  if nobody == nil then
    nobody = redis.call('HLEN', K.crashes) == 0
  end
  local count = suspicions[job] or (nobody and 0)
  if not count then
    count = tonumber(string.match(redis.call('HGET', K.crashes, job) or '', '^%d+') or '0')
    suspicions[job] = count
  end
  return count
end

-- Which grants, by their time in ms, may have killed a worker whose lock ended at `ended`: from, to. Its last heartbeat
-- was one time to live earlier, and the next was due a third of that later.
local function fatal(worker, ended, window)
  local ttl = number_of(redis.call('HGET', K.terms, worker .. ':ttl'))
  return ended - ttl - window, ended - ttl / 2
end

-- How suspect the most suspect jobs are that it was given between `from` and `to`, and how many: 0, 0 without any.
local function blame_of(worker, from, to)
  local count, jobs, since = string.match(redis.call('HGET', K.terms, worker .. ':blame') or '', '^(%d+) (%d+) (%d+)$')
  if not count or tonumber(since) < from or tonumber(since) > to then
    return 0, 0
  end
  return tonumber(count), tonumber(jobs)
end

-- The same for now: what it was given lately. What this script adds to it is written by write_blames().
local blames = {}
local blamed = {}
local function blame_now(worker)
  local blame = blames[worker]
  if not blame then
    blame = { blame_of(worker, now_ms - FADES, now_ms) }
    blames[worker] = blame
  end
  return blame
end

-- It is given a job that is so suspect.
local function note_suspect(worker, suspicion)
  if suspicion == 0 then
    return
  end
  local blame = blame_now(worker)
  if suspicion >= blame[1] then
    blame[1], blame[2] = suspicion, suspicion > blame[1] and 1 or blame[2] + 1
    blamed[worker] = blame
  end
end

local function write_blames()
  for worker, blame in pairs(blamed) do
    redis.call('HSET', K.terms, worker .. ':blame', int(blame[1]) .. ' ' .. int(blame[2]) .. ' ' .. int(now_ms))
  end
end

-- Its lock has ended, at `ended`: what it is blamed on is settled now, however many batches its jobs are moved in.
local function note_end(worker, ended, window)
  local count, jobs = blame_of(worker, fatal(worker, ended, window))
  if count == 0 then
    local low, high = range_of(worker)
    jobs = redis.call('ZCOUNT', K.assigned, low, high)
  end
  redis.call('HSET', K.terms, worker .. ':ended', int(ended) .. ' ' .. int(count) .. ' ' .. int(jobs))
end

-- The crashes that a job was suspected of before, with room for one more.
local function history_of(job)
  local history = string.match(redis.call('HGET', K.crashes, job) or '', '^%d+(.*)$') or ''
  local _, length = string.gsub(history, ' ', '')
  return length >= HISTORY and string.match(history, '^ [^ ]*(.*)$') or history
end

-- What judges the jobs of a worker whose lock has ended, one by one: true if it has set the job aside, which is then
-- in `quarantined`. nil for a worker that was leaving by itself: it did not crash.
local function judge_of(worker, limit, window, quarantined)
  local ended, blamed, jobs = string.match(redis.call('HGET', K.terms, worker .. ':ended') or '', '^(%d+) (%d+) (%d+)$')
  if not ended or limit == 0 then
    return nil
  end
  local from, to = fatal(worker, tonumber(ended), window)
  local this = ' ' .. worker .. '@' .. ended
  local first = '1' .. this
  return function(job, grant, born, changed)
    local count, given = suspicion_of(job), grant / 1000
    if given < from then
      if count > 0 then
        redis.call('HDEL', K.crashes, job) -- it was held for long enough
        suspicions[job] = 0
      end
      return false
    end
    if count ~= tonumber(blamed) or given > to then
      return false
    end
    suspicions[job] = count + 1
    redis.call('HSET', K.crashes, job, count == 0 and first or int(count + 1) .. history_of(job) .. this)
    if count + 1 < limit or jobs ~= '1' then
      return false
    end
    redis.call('ZREM', K.assigned, job)
    write_owner(job, 'q', '0', '0', born, changed)
    redis.call('ZADD', K.quarantine, int(now_ms), job)
    note(JOB_QUARANTINED, job)
    quarantined[#quarantined + 1] = job
    return true
  end
end
