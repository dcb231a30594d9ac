-- Lists interceptions of a shard that have been running for a lease or longer.
--
-- ARGV: the lease in milliseconds, how many to pass over, how many to list. Answers the server's time in milliseconds,
-- then the id and the worker of each. By the server's clock both when they began and now, whatever its clients' clocks.

local shard = KEYS[1]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = { now }
local before = string.format("%.0f", now - tonumber(ARGV[1]))
for _, id in ipairs(redis.call("ZRANGEBYSCORE", shard .. "running", "-inf", before, "LIMIT", ARGV[2], ARGV[3])) do
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call("HGET", shard .. "i:" .. id, "worker") or ""
end
return answer
