-- What every script that writes to a shard begins with: its keys and the time.
--
-- KEYS[1] is what every key of the shard begins with, hash tag included; every other name is made of it. Redis asks for
-- all keys to be declared so that a cluster can tell the node; the tag puts all of them in the slot of KEYS[1], so the
-- node is the right one. KEYS[2], the shard's index, is declared so that there are two keys and one of them, KEYS[1],
-- never exists: while the slot moves to another node, a cluster then answers TRYAGAIN instead of running the script on
-- half of the slot's keys.
--
-- Times are the server's own, for the clocks of its clients differ. Scripts are replicated by their effects (the
-- default since Redis 5), so they may ask for the time and still write.

local shard = KEYS[1]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function whole(number) -- Lua's own text of a large number has an exponent
  return string.format("%.0f", number)
end

local function started_at(id) -- an id begins with the milliseconds of its interception's start
  return tonumber(string.sub(id, 1, 12), 16)
end

local function hour_of(milliseconds) -- yyyymmddhh in UTC; the calendar as in Howard Hinnant's "civil_from_days"
  local hours = math.floor(milliseconds / 3600000)
  local days = math.floor(hours / 24) + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor(
    (day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365
  )
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153) -- counted from March, so that a leap day is the last of its year
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format("%04d%02d%02d%02d", year, month, day, hours % 24)
end
