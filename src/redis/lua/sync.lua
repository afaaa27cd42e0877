-- sync: one page of what a worker holds, as the server sees it. Reads only.
--
-- A payload is sent only for a grant or an update after `since`: an older one the worker has seen, and holds or hands
-- back.
-- A page ends at `limit` rows or about `max_bytes` of payload, but never between two rows of equal score.
--
-- KEYS[1] meta
-- KEYS[2] rev
-- KEYS[3] jobs
-- KEYS[4] owner
-- KEYS[5] assigned
-- KEYS[6] workers
-- KEYS[7] inbox
-- ARGV[1] incarnation
-- ARGV[2] worker
-- ARGV[3] since   revision; 0: every payload
-- ARGV[4] cursor   residue (grant mod 2^26) after which to go on, -1 to begin
-- ARGV[5] limit   rows
-- ARGV[6] max_bytes
-- ARGV[7] token   as in `reserve`
-- Returns {1, revision, inbox, lifted, next, job, grant, born, changed, state, payload, job, ...}
--   next: the cursor of the following page, -1 if this was the last; changed: revision of its last update, 0 if none;
--   state: 0 releasing as it was deleted, 1 active without payload, 2 active with payload, 3 releasing to move
--   {0, why}: 1 the number is dead, 3 another cluster
-- Errors none
-- Publishes nothing

K.meta, K.rev, K.jobs, K.owner, K.assigned, K.workers, K.inbox =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local incarnation, worker, since, cursor = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local token = ARGV[7]

local meta = redis.call('HMGET', K.meta, 'incarnation', 'lifted')
if meta[1] ~= incarnation then
  return { 0, 3 }
end
if not is_member(worker, token) then
  return { 0, 1 }
end

local low, high = '(' .. int(worker * SPAN + cursor), '(' .. int((worker + 1) * SPAN)
local rows = redis.call('ZRANGE', K.assigned, low, high, 'BYSCORE', 'LIMIT', 0, limit + 1, 'WITHSCORES')
-- There is no cursor between two rows of equal score, so the last score of a full page is left to the next one,
-- unless the whole page is of that score.
local full, cut = #rows > 2 * limit, nil
if full and rows[2] ~= rows[#rows] then
  cut = rows[#rows]
elseif full then
  rows = redis.call('ZRANGE', K.assigned, rows[2], rows[2], 'BYSCORE', 'WITHSCORES')
end

local reply = { 1, tonumber(redis.call('GET', K.rev) or '0'),
  tonumber(redis.call('HGET', K.inbox, worker) or '0'), tonumber(meta[2] or '0'), -1 }
local bytes, last = 0, nil
for i = 1, #rows, 2 do
  local job, score = rows[i], rows[i + 1]
  if score == cut or (last and bytes >= max_bytes and score ~= last) then
    full = true
    break
  end
  last = score
  local state, holder, grant, born, changed = owner_of(job)
  if holder == worker then
    local code, payload = state == 'r' and 0 or state == 'm' and 3 or 1, ''
    changed = tonumber(changed or '0')
    if state == 'a' and math.max(tonumber(grant), changed) > since then
      code, payload = 2, redis.call('HGET', K.jobs, job) or ''
      bytes = bytes + #payload
    end
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = job, tonumber(grant), tonumber(born)
    reply[n + 4], reply[n + 5], reply[n + 6] = changed, code, payload
  end
end
if full then
  reply[5] = last - worker * SPAN
end
return reply
