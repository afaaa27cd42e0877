-- place: gives waiting jobs, the oldest first, to the least loaded workers, at the pace that each takes.
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
-- ARGV[1] inbox channel   prefix, the worker's number follows
-- ARGV[2] limit   jobs
-- Returns {placed, waiting, pause}: waiting = 0 where no worker has room; pause: ms after which those with room take
--   more, 0 if at once
-- Errors none
-- Publishes an `add` frame for each job placed

K.rev, K.jobs, K.owner, K.assigned, K.pending, K.load, K.inbox, K.terms, K.crashes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
K.watch, K.changes = KEYS[10], KEYS[11]
K.inbox_channel = ARGV[1]
local limit = tonumber(ARGV[2])
demand_push()

local placed = fill(limit)
conclude()
return { placed, has_room() and redis.call('ZCARD', K.pending) or 0, math.ceil(pause or 0) }
