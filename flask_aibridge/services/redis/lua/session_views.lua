-- The accounting of the interceptions of sessions in one shard, newest first.
--
-- KEYS     the indexes of the sessions' interceptions
-- ARGV[1]  what every key of the shard begins with
-- ARGV[2]  how many are read at most
-- ARGV[3]  below which of the first session's interceptions to go on, as ZRANGE … BYLEX takes it; '+' for the newest
-- ARGV[4]  whose they have to be, or '' for everybody's
--
-- Returns for each session that was begun the starts, states, ends, sums of tokens and lines of its interceptions; and
-- the interception after which to go on in the last one, or '' where all have been read.

local shard, left, highest = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local sessions = {}
for number, key in ipairs(KEYS) do
  local ids = redis.call('ZRANGE', key, highest, '-', 'BYLEX', 'REV', 'LIMIT', 0, left)
  local views = {}
  for _, id in ipairs(ids) do
    local stored = redis.call('HMGET', shard .. 'i:' .. id, 'start', 'status', 'end', 't', 'line', 'user')
    if ARGV[4] == '' or stored[6] == ARGV[4] then
      stored[6] = nil
      views[#views + 1] = stored
    end
  end
  sessions[number] = views
  left = left - #ids
  if left == 0 then
    return {sessions, ids[#ids]}
  end
  highest = '+'
end
return {sessions, ''}
