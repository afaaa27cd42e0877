-- order: tells a worker to give up its jobs and stay (drain), to give them up and go (evict), or to go on (resume).
--
-- The order stays until it is lifted or the worker is gone; each beat tells of it, the frame only makes it fast.
--
-- KEYS[1] rev
-- KEYS[2] workers
-- KEYS[3] load
-- KEYS[4] inbox
-- KEYS[5] terms
-- KEYS[6] watch
-- KEYS[7] changes
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] worker
-- ARGV[3] order   drain, evict or resume
-- Returns {code}: 1 done, 0 there is no such worker, or it has not joined yet
-- Errors none
-- Publishes an `attend` frame to the worker

K.rev, K.workers, K.load, K.inbox, K.terms, K.watch, K.changes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
K.inbox_channel = ARGV[1]
local worker, order = ARGV[2], ARGV[3]
demand_push()

-- Who only reserved its number has no inbox yet, and who is being reaped is no worker any more.
if redis.call('HEXISTS', K.workers, worker) + redis.call('HEXISTS', K.inbox, worker) < 2 then
  return { 0 }
end
if order == 'resume' then
  redis.call('HDEL', K.terms, worker .. ':order')
else
  redis.call('HSET', K.terms, worker .. ':order', order)
  if redis.call('HEXISTS', K.terms, worker) == 1 then
    note(WORKER_DRAINING, tonumber(worker))
  end
  dismiss(worker)
end
send(worker, tick(), { 0, 0, 0, ATTEND })

commit()
return { 1 }
