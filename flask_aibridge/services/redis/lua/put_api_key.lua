-- Stores an API key in place of the one with its id, but leaves its last use as it is, and its revocation: whoever puts
-- the key may have read it before that.
--
-- KEYS: what every key of the shard begins with, which puts the derived names into the same slot, and the API key.
-- ARGV: its id, its owner and the milliseconds when it was made; then its fields and their values.

local kept = { "used", "revoked" }
local values = redis.call("HMGET", KEYS[2], unpack(kept))
local owner = redis.call("HGET", KEYS[2], "owner")
if owner and owner ~= ARGV[2] then
  redis.call("ZREM", KEYS[1] .. "k:" .. owner, ARGV[1])
end
redis.call("DEL", KEYS[2])
for index = 4, #ARGV, 2 do
  redis.call("HSET", KEYS[2], ARGV[index], ARGV[index + 1])
end
for index, name in ipairs(kept) do
  if values[index] then
    redis.call("HSET", KEYS[2], name, values[index])
  end
end
redis.call("ZADD", KEYS[1] .. "k", ARGV[3], ARGV[1])
redis.call("ZADD", KEYS[1] .. "k:" .. ARGV[2], ARGV[3], ARGV[1])
