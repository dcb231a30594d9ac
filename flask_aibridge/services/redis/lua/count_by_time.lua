-- Counts what by_time.lua walks.
--
-- KEYS[1]  all of them, or one user's, with times as scores
-- ARGV[1]  the highest and ARGV[2] the lowest time, as ZRANGEBYSCORE takes them

return redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[1])
