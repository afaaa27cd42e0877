-- shares: who holds more than its share, and who less. Needs terms.

local TAKERS = 8 -- workers that are looked at, from the least loaded up
local GIVERS = 16 -- and from the most loaded down, of those with room and of those without

-- Of `rows` (worker, load, ...): those that are given jobs, as long as they are not `seen`, go into `list`.
local function stand(list, seen, rows)
  for i = 1, #rows, 2 do
    local worker, terms = rows[i], terms_of(rows[i])
    if terms and not seen[worker] then
      seen[worker] = true
      local held = held_by(terms, tonumber(rows[i + 1]))
      list[#list + 1] = { worker = worker, weight = terms.weight, capacity = terms.capacity, held = held,
        level = held / terms.weight, moving = moving_of(worker) }
    end
  end
end

-- Those with room, the least loaded first.
local function least_loaded()
  local list = {}
  stand(list, {}, redis.call('ZRANGE', K.load, '-inf', '(' .. int(FULL), 'BYSCORE', 'LIMIT', 0, TAKERS, 'WITHSCORES'))
  return list
end

-- Those with room and those without, the most loaded first.
local function most_loaded()
  local list, seen = {}, {}
  stand(list, seen, redis.call('ZRANGE', K.load, 0, GIVERS - 1, 'REV', 'WITHSCORES'))
  stand(list, seen,
    redis.call('ZRANGE', K.load, '(' .. int(FULL), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, GIVERS, 'WITHSCORES'))
  table.sort(list, function(a, b) return a.level > b.level end)
  return list
end

-- How many more jobs it can hold.
local function room_of(taker)
  return taker.capacity > 0 and taker.capacity - taker.held or math.huge
end
