-- history: the batches of changes after a revision, from the journal. Reads only.
--
-- KEYS[1] watch
-- KEYS[2] changes
-- KEYS[3] rev
-- ARGV[1] after   revision
-- ARGV[2] limit   batches
-- Returns {reaches, last, more, batch, ...}
--   reaches: 1 if nothing after `after` is missing; last: revision of the last batch there was, 0 if nobody watches;
--   more: 1 if there are more than the limit; batch: a message as it was published
-- Errors none
-- Publishes nothing

K.watch, K.changes, K.rev = KEYS[1], KEYS[2], KEYS[3]
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])

local watch = redis.call('HMGET', K.watch, 'until', 'from', 'last')
if number_of(watch[1]) <= now_ms then
  return { 0, 0, 0 }
end
local last = number_of(watch[3])
-- What is later than the cluster's revision was not this cluster's: it says nothing of what is missing.
if after < number_of(watch[2]) or after > number_of(redis.call('GET', K.rev)) then
  return { 0, last, 0 }
end
local rows = redis.call('XRANGE', K.changes, '(' .. int(after) .. '-0', '+', 'COUNT', limit + 1)
local reply = { (#rows > 0 or after >= last) and 1 or 0, last, #rows > limit and 1 or 0 }
for i = 1, math.min(#rows, limit) do
  reply[i + 3] = rows[i][2][2]
end
return reply
