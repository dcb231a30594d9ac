-- The names that were seen last in one shard.
--
-- KEYS[1]  the names
-- ARGV[1]  how many

return redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
