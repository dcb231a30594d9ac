-- Raises a copy of the configuration's version; copies may be written in any order. KEYS: the copy. ARGV: the version.

if tonumber(redis.call("GET", KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call("SET", KEYS[1], ARGV[1])
end
