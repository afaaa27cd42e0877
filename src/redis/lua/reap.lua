-- reap: if a worker's lock has ended, moves its jobs to others, a batch at a time.
--
-- The deadline alone says when a lock ends. A key that was deleted or evicted early does not end the lease that its
-- worker counts on; one that was set by hand, or will never expire, does not keep a dead worker's jobs.
-- Deleting the key also makes the server announce its end now.
-- The first batch makes the number dead: it cannot beat, sync or join again. Its deadline stays until the last
-- batch, so that another finishes what a dying reaper began.
--
-- A worker with a name and a grace is dead at once, but its jobs are kept for its heir until the grace is over: the
-- deadline is then the end of the grace.
--
-- Which job it was that killed a worker nobody knows. Suspect are those that it was given within `window` before its last
-- heartbeat, or while the next was not overdue: what it was given later, it was given when it was dead. Of these only
-- the ones that were suspected most often before. One that is the only suspect, and has been one `crashes` times,
-- is quarantined.
--
-- KEYS[1] rev
-- KEYS[2] jobs
-- KEYS[3] owner
-- KEYS[4] assigned
-- KEYS[5] pending
-- KEYS[6] load
-- KEYS[7] inbox
-- KEYS[8] terms
-- KEYS[9] crashes
-- KEYS[10] deadlines
-- KEYS[11] workers
-- KEYS[12] lock   of the worker to reap
-- KEYS[13] quarantine
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] released channel
-- ARGV[3] control channel
-- ARGV[4] worker   to reap
-- ARGV[5] limit   jobs
-- ARGV[6] not_after   us by the server's clock
-- ARGV[7] crashes   after which a job is quarantined; 0: never
-- ARGV[8] window   ms
-- Returns {code, moved, left, other, other_ms, job, ...}
--   code: 0 nothing to reap, 1 reaped (left > 0: call again), 2 its lock has not ended (left = ms until it may),
--   3 its jobs are kept for one of its name (left = ms for which they are)
--   other, other_ms: the worker whose lock ends next, and in how long (0, 0: none)
--   job: those that are quarantined now
-- Errors LATE <now_us>: the server's clock is past not_after; nothing was done
-- Publishes `fenced` to the worker, `reaping` or `reaped` on the control channel, an `add` frame for each job that
--   went on, `released` for each that was deleted

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.crashes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.deadlines, K.workers, K.lock, K.quarantine = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
K.inbox_channel, K.released_channel, K.control_channel = ARGV[1], ARGV[2], ARGV[3]
local worker, limit, not_after = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local crashes, window = tonumber(ARGV[7]), tonumber(ARGV[8])

if now_us > not_after then
  return redis.error_reply('LATE ' .. int(now_us))
end
local deadline = tonumber(redis.call('ZSCORE', K.deadlines, worker) or '-1')
local other, other_ms = earliest_but(worker)
if deadline < 0 then
  return { 0, 0, 0, other, other_ms }
end
if now_ms < deadline then
  return { 2, 0, deadline - now_ms, other, other_ms }
end

redis.call('DEL', K.lock)
if redis.call('HDEL', K.workers, worker) == 1 then
  dismiss(worker)
  local low, high = range_of(worker)
  local held = redis.call('ZCOUNT', K.assigned, low, high)
  redis.call('HSET', K.terms, worker .. ':ended', int(deadline), worker .. ':held', held)
  send(worker, tick(), { 0, 0, 0, FENCED })
  sent[worker] = nil
  local grace = tonumber(string.match(redis.call('HGET', K.terms, worker .. ':name') or '', '^(%d+) ') or '0')
  if grace > 0 and redis.call('HEXISTS', K.terms, worker .. ':heir') == 0 then
    redis.call('HDEL', K.inbox, worker)
    redis.call('ZADD', K.deadlines, int(now_ms + grace), worker)
    announce(REAPED, worker)
    commit()
    return { 3, 0, grace, other, other_ms }
  end
end
redis.call('HDEL', K.inbox, worker) -- each time: a delete between two batches has written to it

local last = redis.call('HMGET', K.terms, worker .. ':ended', worker .. ':held', worker .. ':ttl')
local ended, held, ttl = tonumber(last[1] or deadline), tonumber(last[2] or '0'), tonumber(last[3] or '0')
-- The last heartbeat was one TTL before the end, and the next was due a third of it later.
local from, to = (ended - ttl - window) * 1000, (ended - ttl / 2) * 1000
local level, alone, since = blame_of(worker)
if since * 1000 < from or since * 1000 > to then
  level, alone = 0, held
end
local quarantined = {}
local function judge(job, grant)
  local count = suspicion_of(job)
  if tonumber(grant) < from then
    if count > 0 then
      redis.call('HDEL', K.crashes, job) -- it was held for long enough
    end
    return false
  end
  if count ~= level or tonumber(grant) > to then
    return false
  end
  count, suspects = count + 1, true
  local history = string.match(redis.call('HGET', K.crashes, job) or '', '^%d+(.*)$') or ''
  local _, known_crashes = string.gsub(history, ' ', '')
  if known_crashes >= HISTORY then
    history = string.match(history, '^ [^ ]+(.*)$')
  end
  redis.call('HSET', K.crashes, job, count .. history .. ' ' .. worker .. '@' .. int(ended))
  if count >= crashes and alone == 1 then
    quarantined[#quarantined + 1] = job
    return true
  end
  return false
end

local moved, left = evict(worker, limit, crashes > 0 and judge or nil)
if left == 0 then
  redis.call('ZREM', K.deadlines, worker)
  forget(worker)
end
announce(left == 0 and REAPED or REAPING, worker)

commit()
local reply = { 1, moved, left, other, other_ms }
for _, job in ipairs(quarantined) do
  reply[#reply + 1] = job
end
return reply
