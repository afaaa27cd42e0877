-- reap: if a worker's lock has ended, moves its jobs to others, a batch at a time.
--
-- The deadline alone says when a lock ends. A key that was deleted or evicted early does not end the lease that its
-- worker counts on; one that was set by hand, or will never expire, does not keep a dead worker's jobs.
-- Deleting the key also makes the server announce its end now.
-- The first batch makes the number dead: it cannot beat, sync or join again. Its deadline stays until the last
-- batch, so that another finishes what a dying reaper began.
--
-- A worker with a name and a grace is dead at once, but its jobs are kept for the next one of its name until the grace
-- is over: the deadline is then the end of the grace.
--
-- A job that is the only suspect of having killed its worker, and has been suspected `crashes` times, is quarantined:
-- lib/suspicion.lua.
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
-- KEYS[10] watch
-- KEYS[11] changes
-- KEYS[12] deadlines
-- KEYS[13] workers
-- KEYS[14] lock   of the worker to reap
-- KEYS[15] quarantine
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
K.watch, K.changes, K.deadlines, K.workers, K.lock, K.quarantine =
  KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
K.inbox_channel, K.released_channel, K.control_channel = ARGV[1], ARGV[2], ARGV[3]
local worker, limit, not_after = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local crashes, window = tonumber(ARGV[7]), tonumber(ARGV[8])
demand_push()

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
local kept
if redis.call('HDEL', K.workers, worker) == 1 then
  dismiss(worker)
  if redis.call('HEXISTS', K.inbox, worker) == 1 then -- who only reserved its number was no worker yet
    note(WORKER_EXPIRED, tonumber(worker))
  end
  send(worker, tick(), { 0, 0, 0, FENCED })
  sent[worker] = nil
  note_end(worker, deadline, window)
  local name, grace = name_of(worker)
  kept = name and grace > 0 and named(name) == worker and grace
end
redis.call('HDEL', K.inbox, worker) -- each time: a delete between two batches has written to it
if kept then
  redis.call('ZADD', K.deadlines, int(now_ms + kept), worker)
  announce(REAPED, worker)
  commit()
  return { 3, 0, kept, other, other_ms }
end

local quarantined = {}
local moved, left = evict(worker, limit, judge_of(worker, crashes, window, quarantined))
if left == 0 then
  redis.call('ZREM', K.deadlines, worker)
  forget(worker)
end
announce(left == 0 and REAPED or REAPING, worker)

conclude()
local reply = { 1, moved, left, other, other_ms }
for _, job in ipairs(quarantined) do
  reply[#reply + 1] = job
end
return reply
