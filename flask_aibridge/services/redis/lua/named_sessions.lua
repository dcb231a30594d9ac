-- The sessions of one shard that other shards may have too: those that have a session id. An interception without one
-- is a session in its own shard alone.
--
-- KEYS[1]  the sessions: all of them, or one user's
-- ARGV[1]  the highest and ARGV[2] the lowest time, as ZRANGEBYSCORE takes them

local named = {}
for _, session in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2])) do
  if string.find(session, '^s:') or string.find(session, '^%["s:') then
    named[#named + 1] = session
  end
end
return named
