-- When sessions were last active in one shard, and how long they are in it.
--
-- KEYS[1]   the sessions: all of them, or one user's
-- KEYS[2…]  for each of them, the index of its interceptions
-- ARGV      the sessions, as they are in KEYS[1]
--
-- Returns the times, null where the shard has nothing of a session; and the numbers of interceptions.

local sizes = {}
for number = 2, #KEYS do
  sizes[number - 1] = redis.call('ZCARD', KEYS[number])
end
return {redis.call('ZMSCORE', KEYS[1], unpack(ARGV)), sizes}
