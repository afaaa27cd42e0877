-- watch: somebody watches the cluster from now on, for a while. A watcher's heartbeat, too.
--
-- Where nobody did, the journal begins anew: it has nothing of the time between.
--
-- KEYS[1] rev
-- KEYS[2] watch
-- KEYS[3] changes
-- ARGV[1] keep   ms for which changes are told and kept from now on
-- ARGV[2] length   batches that the journal is to have at least; 0: none are kept
-- Returns {1, last}: revision of the last batch
-- Errors none
-- Publishes nothing

K.rev, K.watch, K.changes = KEYS[1], KEYS[2], KEYS[3]
local keep, length = tonumber(ARGV[1]), tonumber(ARGV[2])

local watch = redis.call('HMGET', K.watch, 'until', 'last', 'length')
local ends, last = number_of(watch[1]), number_of(watch[2])
if ends <= now_ms then
  last = tick()
  redis.call('DEL', K.changes)
  redis.call('HSET', K.watch, 'from', int(last), 'last', int(last), 'length', int(length))
  redis.call('SET', K.rev, int(last))
elseif length > number_of(watch[3]) then
  redis.call('HSET', K.watch, 'length', int(length))
end
ends = math.max(ends, now_ms + keep)
redis.call('HSET', K.watch, 'until', int(ends))
-- Nothing is left of it when nobody has watched for so long.
redis.call('PEXPIRE', K.watch, int(ends - now_ms))
redis.call('PEXPIRE', K.changes, int(ends - now_ms))
return { 1, last }
