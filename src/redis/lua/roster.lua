-- roster: a page of the workers, each as it describes itself and as the server sees it. Reads only.
--
-- A worker that is there from the first page to the last is listed at least once. Who only reserved its number is none.
--
-- KEYS[1] workers
-- KEYS[2] deadlines
-- KEYS[3] load
-- KEYS[4] assigned
-- KEYS[5] terms
-- ARGV[1] cursor   0 to begin
-- ARGV[2] count   about how many rows
-- Returns {0, next, worker, since_ms, remaining_ms, jobs, takes, weight, capacity, order, info, ...}
--   next: the following page's cursor, as text, "0" at the end; takes: 1 if it is given new jobs;
--   weight, capacity: 0 unless it is; order: as in `beat`
--   remaining_ms: until its lock ends, 0 if it has ended
-- Errors none
-- Publishes nothing

K.workers, K.deadlines, K.load, K.assigned, K.terms = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local cursor, count = ARGV[1], tonumber(ARGV[2])

local scan = redis.call('HSCAN', K.workers, cursor, 'COUNT', count)
local reply = { 0, scan[1] }
for i = 1, #scan[2], 2 do
  local worker, since, info = scan[2][i], string.match(scan[2][i + 1], '^(%d+) %S+ (.*)$')
  if since and redis.call('HEXISTS', K.terms, worker .. ':ttl') == 1 then -- written by reserve, and has joined
    local n, deadline = #reply, tonumber(redis.call('ZSCORE', K.deadlines, worker) or '0')
    reply[n + 1], reply[n + 2], reply[n + 3] = tonumber(worker), tonumber(since), math.max(deadline - now_ms, 0)
    local low, high = range_of(worker)
    reply[n + 4] = redis.call('ZCOUNT', K.assigned, low, high)
    local terms, order = terms_of(worker), redis.call('HGET', K.terms, worker .. ':order')
    reply[n + 5] = redis.call('ZSCORE', K.load, worker) and 1 or 0
    reply[n + 6], reply[n + 7] = terms and terms.weight or 0, terms and terms.capacity or 0
    reply[n + 8], reply[n + 9] = order == 'evict' and 2 or order == 'drain' and 1 or 0, info
  end
end
return reply
