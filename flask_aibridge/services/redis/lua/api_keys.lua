-- API keys of one shard. KEYS: their hashes. Answers the fields of each with their values, in turn.

local rows = {}
for index, key in ipairs(KEYS) do
  rows[index] = redis.call("HGETALL", key)
end
return rows
