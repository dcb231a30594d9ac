-- Stores an API key in place of the one with its id, but leaves its last use as it is.
--
-- KEYS: what every key of the shard begins with, which puts the derived names into the same slot, and the API key.
-- ARGV: its id, then its fields and their values.

local used = redis.call("HGET", KEYS[2], "used")
redis.call("DEL", KEYS[2])
for index = 2, #ARGV, 2 do
  redis.call("HSET", KEYS[2], ARGV[index], ARGV[index + 1])
end
if used then
  redis.call("HSET", KEYS[2], "used", used)
end
redis.call("SADD", KEYS[1] .. "keys", ARGV[1])
