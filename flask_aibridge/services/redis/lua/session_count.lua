-- Counts the sessions of one shard.
--
-- KEYS[1]  the sessions: all of them, or one user's
-- ARGV[1]  the highest and ARGV[2] the lowest time, as ZRANGEBYSCORE takes them

return redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[1])
