-- The rate limit, as services/rate_limits.py has it. Stands behind shard.lua, whose `time` and `whole` it uses.
--
-- A limit is text such as "60/minute burst=20". What is kept of a caller is the theoretical arrival time of the next
-- request, in microseconds: one key, which expires when it means nothing any more. All numbers are whole and below 2^53.

local PERIODS = { second = 1000000, minute = 60000000, hour = 3600000000, day = 86400000000 }

-- Counts a request, unless it was counted before. Answers how many more may come now and the microseconds until one more
-- may; or, for one that comes too early, nothing and the microseconds until it may, and then leaves all as it was.
local function count(key, limit, again)
  local requests, period, burst = string.match(limit, "^(%d+)/(%l+) burst=(%d+)$")
  local interval = math.ceil(PERIODS[period] / requests)
  local tolerance = interval * burst
  local at = time[1] * 1000000 + time[2]
  local arrival = tonumber(redis.call("GET", key) or 0)
  if arrival < at or arrival > at + 2 * tolerance then
    arrival = at
  end
  if not again then
    local wait = arrival + interval - tolerance - at
    if wait > 0 then
      return nil, wait
    end
    arrival = arrival + interval
    redis.call("SET", key, whole(arrival), "PX", whole(math.ceil((arrival - at) / 1000)))
  end
  local remaining = math.max(0, math.floor((at + tolerance - arrival) / interval))
  return remaining, arrival + (remaining + 1) * interval - tolerance - at
end
