-- push: frames to the workers' inboxes, and what everybody is told. Needs base and changes.
--
-- Each frame carries the revision of the frame before it on the same inbox, so that a receiver sees a gap.

local ADD, DELETE, FENCED, UPDATE, ATTEND = 1, 2, 3, 4, 5
local LEFT, REAPING, REAPED = 1, 2, 3
local REMOVED, REBALANCED = 1, 2

-- worker -> revision of the last frame sent to it by this script
local sent = {}

local function send(worker, rev, head, payload)
  local previous = sent[worker] or number_of(redis.call('HGET', K.inbox, worker))
  head[1], head[2], head[3] = FRAME, rev, previous
  redis.call('SPUBLISH', K.inbox_channel .. worker, cmsgpack.pack(head) .. (payload or ''))
  sent[worker] = rev
end

-- Called before anything is written: a user that may not push would leave half a change behind, as the server undoes
-- nothing. It costs half a microsecond.
local function demand_push()
  if redis.acl_check_cmd and not redis.acl_check_cmd('SPUBLISH', K.inbox_channel .. '0') then
    error({ err = 'NOPERM this user may not SPUBLISH to the channels of the cluster' })
  end
end

local function announce(kind, worker)
  redis.call('SPUBLISH', K.control_channel, cmsgpack.pack({ FRAME, kind, tonumber(worker) }))
end

-- Tells of what has changed, and writes down what tick() and send() have used. The last thing a script does before it
-- returns.
local function commit()
  for worker, rev in pairs(sent) do
    redis.call('HSET', K.inbox, worker, int(rev))
  end
  if revision then
    redis.call('SET', K.rev, int(revision))
  end
  publish_changes() -- last: nothing of the cluster's own is to depend on it
end
