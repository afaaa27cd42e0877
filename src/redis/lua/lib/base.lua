-- base: what every script shares: its keys, the server's clock, the revision, the records.
--
-- A script names its inputs into K first. Nothing here writes.

local K = {}

-- One worker's assignments are one range of {p}:assigned: score = number * SPAN + grant mod SPAN.
local SPAN = 67108864 -- 2^26

-- What a worker without room has on top of its load in {p}:load, so that it comes after all that have some.
local FULL = 4294967296 -- 2^32

-- Numbers go to the server as text without exponent or fraction: tostring() turns to 1e+15 at 1e14. Making that text
-- costs as much as a call of a command, so the last one is kept: a revision is written to several places. Numbers
-- that are always the same are written as text to begin with.
local last_int, last_text
local function int(n)
  if n ~= last_int then
    last_int, last_text = n, string.format('%.0f', n)
  end
  return last_text
end

-- A whole number as it is stored, where anybody may have written: what is none counts as 0.
local function number_of(text)
  local number = tonumber(text or '0')
  return number and number >= 0 and number < 9007199254740992 and math.floor(number) or 0 -- 2^53; NaN is not less
end

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- The revision is a hybrid clock: one more than the last, or the server's clock if that is later.
local revision
local function tick()
  if not revision then
    revision = number_of(redis.call('GET', K.rev))
  end
  revision = math.max(revision + 1, now_us)
  return revision
end

-- "<state> <worker> <grant> <born>", and " <changed>" if it was updated, see PROTOCOL.md; nil where there is no such
-- job. A record of another form has state '?' and nothing else: somebody may hold that job, so it is not free.
local function owner_of(job)
  local record = redis.call('HGET', K.owner, job)
  if not record then
    return nil
  end
  local state, worker, grant, born, changed = string.match(record, '^([parmq]) (%d+) (%d+) (%d+)$')
  if not state then
    state, worker, grant, born, changed = string.match(record, '^([parmq]) (%d+) (%d+) (%d+) (%d+)$')
  end
  return state or '?', worker, grant, born, changed
end

local function write_owner(job, state, worker, grant, born, changed)
  local record = state .. ' ' .. worker .. ' ' .. grant .. ' ' .. born
  redis.call('HSET', K.owner, job, changed and record .. ' ' .. changed or record)
end

-- Whether that number is the caller's. A server that has lost writes may give out a number again that somebody still
-- believes to have: the token tells them apart.
local function is_member(worker, token)
  return string.match(redis.call('HGET', K.workers, worker) or '', '^%d+ (%S+) ') == token
end

local function score_of(worker, grant)
  return worker * SPAN + grant % SPAN
end

-- The scores of one worker's assignments: from, to.
local function range_of(worker)
  return int(worker * SPAN), '(' .. int((worker + 1) * SPAN)
end
