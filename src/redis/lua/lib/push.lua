-- push: frames to the workers' inboxes, and the assignment itself. Needs base.
--
-- Each frame carries the revision of the frame before it on the same inbox, so that a receiver sees a gap.

local FRAME = 1 -- version of the frame's layout
local ADD, DELETE, FENCED = 1, 2, 3
local LEFT, REAPING, REAPED = 1, 2, 3

-- worker -> revision of the last frame sent to it by this script
local sent = {}

local function send(worker, rev, head, payload)
  local previous = sent[worker] or tonumber(redis.call('HGET', K.inbox, worker) or '0')
  head[1], head[2], head[3] = FRAME, rev, previous
  redis.call('SPUBLISH', K.inbox_channel .. worker, cmsgpack.pack(head) .. (payload or ''))
  sent[worker] = rev
end

local function announce(kind, worker)
  redis.call('SPUBLISH', K.control_channel, cmsgpack.pack({ FRAME, kind, tonumber(worker) }))
end

-- Gives a job that nobody holds to the least loaded worker, or lets it wait where there is none.
-- `born` is the revision of its add, and its place in the queue. Returns the worker, or nil.
local function assign(job, born, payload, grant)
  local worker = redis.call('ZRANGE', K.load, 0, 0)[1]
  if not worker then
    redis.call('HSET', K.owner, job, 'p 0 0 ' .. born)
    redis.call('ZADD', K.pending, born, job)
    return nil
  end
  grant = grant or tick()
  redis.call('HSET', K.owner, job, 'a ' .. worker .. ' ' .. int(grant) .. ' ' .. born)
  redis.call('ZADD', K.assigned, score_of(worker, grant), job)
  redis.call('ZINCRBY', K.load, 1, worker)
  send(worker, grant, { 0, 0, 0, ADD, job, tonumber(born) }, payload)
  return worker
end

-- Takes a job from its worker: gone if it was deleted, else on to the next one.
-- The caller has seen that (worker, grant) is the record's. Whoever waits for the release is told.
local function let_go(job, state, worker, grant, born)
  redis.call('ZREM', K.assigned, job)
  redis.call('ZADD', K.load, 'XX', 'INCR', -1, worker)
  if state == 'r' then
    redis.call('SPUBLISH', K.released_channel, cmsgpack.pack({ FRAME, job, tonumber(grant) }))
  end
  if born == '0' then
    redis.call('HDEL', K.owner, job)
    return
  end
  assign(job, born, redis.call('HGET', K.jobs, job) or '')
end

-- Moves at most `limit` of a dead worker's jobs on. Returns how many it moved and how many are left.
local function evict(worker, limit)
  local low, high = int(worker * SPAN), '(' .. int((worker + 1) * SPAN)
  local jobs = redis.call('ZRANGE', K.assigned, low, high, 'BYSCORE', 'LIMIT', 0, limit)
  for _, job in ipairs(jobs) do
    local state, holder, grant, born = owner_of(job)
    if holder == worker then
      let_go(job, state, worker, grant, born)
    else
      redis.call('ZREM', K.assigned, job) -- an orphan of the index: the record decides
    end
  end
  return #jobs, redis.call('ZCOUNT', K.assigned, low, high)
end

-- Writes down what tick() and send() have used. The last thing a script does before it returns.
local function commit()
  for worker, rev in pairs(sent) do
    redis.call('HSET', K.inbox, worker, int(rev))
  end
  if revision then
    redis.call('SET', K.rev, int(revision))
  end
end
