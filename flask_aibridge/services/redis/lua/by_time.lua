-- Walks what one shard has in order of time, latest first: sessions by when they were last active, API keys by when they
-- were made.
--
-- KEYS[1]  all of them, or one user's, with times as scores
-- ARGV[1]  the highest and ARGV[2] the lowest time, as ZRANGEBYSCORE takes them
-- ARGV[3]  how many are wanted, at least 1
--
-- Returns them and their times in turn; all of those that share the last of the times, for their order is made elsewhere.
-- Fewer than were wanted are the last ones.

local found = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
if #found < 2 * tonumber(ARGV[3]) then
  return found
end
local last = found[#found]
while found[#found] == last do
  found[#found] = nil
  found[#found] = nil
end
for _, entry in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], last, last, 'WITHSCORES')) do
  found[#found + 1] = entry
end
return found
