-- Stores a row of configuration. KEYS: the version and the table. ARGV: name, text, and 1 where the version counts the
-- changes of this table, else 0. Answers the version.

redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
return redis.call("INCRBY", KEYS[1], ARGV[3])
