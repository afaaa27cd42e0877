-- changes: what happened, for whoever watches the cluster. Needs base.
--
-- {p}:watch says until when somebody watches. If nobody does, all of this costs one look at a key that is not there.
-- What one script does is one batch: published on {p}:changes, and kept in the stream of the same name.

local FRAME = 1 -- version of the layout of every message
local JOB_ADDED, JOB_ASSIGNED, JOB_UPDATED, JOB_MOVING, JOB_RELEASED, JOB_DELETED, JOB_QUARANTINED, JOB_REQUEUED =
  1, 2, 3, 4, 5, 6, 7, 8
local WORKER_JOINED, WORKER_DRAINING, WORKER_RESUMED, WORKER_LEFT, WORKER_EXPIRED = 11, 12, 13, 14, 15

local watched -- {last, length} if somebody watches, false if nobody does
local batch = {}

local function is_watched()
  if watched == nil then
    local watch = redis.call('HMGET', K.watch, 'until', 'last', 'length')
    watched = number_of(watch[1]) > now_ms and { last = number_of(watch[2]), length = number_of(watch[3]) }
  end
  return watched
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

-- Tells of the batch. Before commit(), as it counts on the revision.
local function publish_changes()
  if #batch == 0 then
    return
  end
  local last = batch[#batch][2]
  local message = cmsgpack.pack({ FRAME, last, watched.last, batch })
  redis.call('SPUBLISH', K.changes, message)
  if watched.length > 0 then
    redis.call('XADD', K.changes, 'MAXLEN', '~', int(watched.length), int(last) .. '-0', 'b', message)
  end
  redis.call('HSET', K.watch, 'last', int(last))
end
