-- Stores an API key in place of the one with its id, but leaves its last use as it is, and its revocation: whoever puts
-- the key may have read it before that.
--
-- KEYS: what every key of the shard begins with, which puts the derived names into the same slot, and the API key.
-- ARGV: its id, then its fields and their values.

local kept = { "used", "revoked" }
local values = redis.call("HMGET", KEYS[2], unpack(kept))
redis.call("DEL", KEYS[2])
for index = 2, #ARGV, 2 do
  redis.call("HSET", KEYS[2], ARGV[index], ARGV[index + 1])
end
for index, name in ipairs(kept) do
  if values[index] then
    redis.call("HSET", KEYS[2], name, values[index])
  end
end
redis.call("SADD", KEYS[1] .. "keys", ARGV[1])
