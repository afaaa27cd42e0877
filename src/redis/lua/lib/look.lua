-- look: what a participant is to know of the others. Needs base.

-- Whether a job that waits could be given to somebody.
local function has_room()
  local first = redis.call('ZRANGE', K.load, '0', '0', 'WITHSCORES')
  return first[2] ~= nil and tonumber(first[2]) < FULL
end

-- When another lock ends: the earliest worker but `me`, and in how many ms; 0, 0 where there is none.
local function earliest_but(me)
  local row = redis.call('ZRANGE', K.deadlines, '0', '1', 'WITHSCORES')
  for i = 1, #row, 2 do
    local other = tonumber(row[i])
    if other and row[i] ~= me then
      return other, math.max(tonumber(row[i + 1]) - now_ms, 0)
    end
  end
  return 0, 0
end
