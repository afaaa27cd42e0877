-- changes: what happened, for whoever watches the cluster. Needs base.
--
-- {p}:watch says until when somebody watches. If nobody does, all of this costs one look at a key that is not there.
-- What one script does is one batch: published on {p}:changes, and kept in the stream of the same name.

local FRAME = 1 -- version of the layout of every message
local JOB_ADDED, JOB_ASSIGNED, JOB_UPDATED, JOB_MOVING, JOB_RELEASED, JOB_DELETED, JOB_QUARANTINED, JOB_REQUEUED =
  1, 2, 3, 4, 5, 6, 7, 8
local WORKER_JOINED, WORKER_DRAINING, WORKER_RESUMED, WORKER_LEFT, WORKER_EXPIRED = 11, 12, 13, 14, 15

local watched -- {ends, last, length} if somebody watches, false if nobody does
local batch = {}

-- Whatever somebody else has made of the key must not end a script half way.
local function is_watched()
  if watched == nil then
    watched = false
    if redis.call('EXISTS', K.watch) == 1 and redis.call('TYPE', K.watch).ok == 'hash' then
      local watch = redis.call('HMGET', K.watch, 'until', 'last', 'length')
      local ends, last, length = number_of(watch[1]), number_of(watch[2]), number_of(watch[3])
      watched = ends > now_ms and { ends = ends, last = last, length = length }
    end
  end
  return watched
end

-- Adds the batch to the journal. What is there and no journal, or later than this, was not written by a script, and
-- would have it refused: it goes.
local function keep(last, message)
  local id, kind = int(last) .. '-0', redis.call('TYPE', K.changes).ok
  if kind ~= 'none' and (kind ~= 'stream' or #redis.call('XRANGE', K.changes, id, '+', 'COUNT', 1) > 0) then
    redis.call('DEL', K.changes)
    kind = 'none'
  end
  redis.call('XADD', K.changes, 'MAXLEN', '~', int(watched.length), id, 'b', message)
  if kind == 'none' then
    redis.call('PEXPIRE', K.changes, int(watched.ends - now_ms))
  end
end

-- `at`: its revision, if it has one already that is later than that of the last change.
local function note(kind, subject, worker, at)
  if is_watched() then
    local change = { kind, at or tick(), subject }
    if worker then
      change[4] = tonumber(worker)
    end
    batch[#batch + 1] = change
  end
end

-- Tells of the batch.
local function publish_changes()
  if #batch == 0 then
    return
  end
  local last = batch[#batch][2]
  local message = cmsgpack.pack({ FRAME, last, watched.last, batch })
  redis.call('SPUBLISH', K.changes, message)
  if watched.length > 0 then
    keep(last, message)
  end
  redis.call('HSET', K.watch, 'last', int(last))
end
