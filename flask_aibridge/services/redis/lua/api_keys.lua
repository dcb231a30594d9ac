-- Lists some API keys of a shard. KEYS: what every key of the shard begins with, and the set of API keys.
-- ARGV: the cursor, "0" at first, and about how many. Answers the next cursor, "0" at the end, and for each key its id
-- and its fields with their values. Of a key that comes twice, either is right.

local found = redis.call("SSCAN", KEYS[2], ARGV[1], "COUNT", ARGV[2])
local rows = {}
for index, id in ipairs(found[2]) do
  rows[index] = { id, redis.call("HGETALL", KEYS[1] .. "key:" .. id) }
end
return { found[1], rows }
