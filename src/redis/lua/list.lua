-- list: a page of the jobs and who holds them, without payloads. Reads only.
--
-- A job that is there from the first page to the last is listed at least once.
--
-- KEYS[1] meta
-- KEYS[2] owner
-- ARGV[1] cursor   0 to begin
-- ARGV[2] count   about how many rows
-- Returns {lifted, next, job, record, ...}: next as text, "0" at the end; the records are those of {p}:owner
-- Errors none
-- Publishes nothing

K.meta, K.owner = KEYS[1], KEYS[2]
local cursor, count = ARGV[1], tonumber(ARGV[2])

local scan = redis.call('HSCAN', K.owner, cursor, 'COUNT', count)
local reply = { tonumber(redis.call('HGET', K.meta, 'lifted') or '0'), scan[1] }
for _, text in ipairs(scan[2]) do
  reply[#reply + 1] = text
end
return reply
