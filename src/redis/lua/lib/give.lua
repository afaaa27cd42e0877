-- give: a job that nobody holds is given to the least loaded, or waits. Needs push and terms.

local LOOK_AT = 16 -- workers that are looked at for one job, where the first will not do

-- The least loaded worker with room; of those that `fits(worker, load, terms)`, if given.
local function choose(fits)
  local rows = redis.call('ZRANGE', K.load, 0, 0, 'WITHSCORES')
  for i = 1, 2 * LOOK_AT, 2 do
    if i == 3 then
      rows = redis.call('ZRANGE', K.load, 0, LOOK_AT - 1, 'WITHSCORES')
    end
    local worker, load = rows[i], tonumber(rows[i + 1])
    if not worker or load >= FULL then
      return nil
    end
    local terms = terms_of(worker)
    if terms and (not fits or fits(worker, load, terms)) then
      return worker, load, terms
    end
  end
end

local function hand(job, born, changed, payload, grant, worker, load, terms)
  write_owner(job, 'a', worker, int(grant), born, changed)
  note(JOB_ASSIGNED, job, worker, grant)
  redis.call('ZADD', K.assigned, score_of(worker, grant), job)
  set_held(worker, terms, held_by(terms, load) + 1)
  send(worker, grant, { 0, 0, 0, ADD, job, tonumber(born) }, payload)
end

local function wait(job, born, changed)
  write_owner(job, 'p', '0', '0', born, changed)
  redis.call('ZADD', K.pending, born, job)
end
