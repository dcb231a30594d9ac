-- The roll-ups of the hours of one shard that have any.
--
-- KEYS[1]  the hours
-- ARGV[1]  what every key of the shard begins with
-- ARGV[2]  the first and ARGV[3] the last hour, as ZRANGE … BYLEX takes them
-- ARGV[4]  how many fields are read, about
--
-- Returns JSON, which is read faster than as many replies: a list of pairs, an hour and a list of fields and values in
-- turn; and the last of these hours, or '' where there are no more.

local left = tonumber(ARGV[4])
local hours = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'BYLEX')
local found = {}
for number, hour in ipairs(hours) do
  local fields = redis.call('HGETALL', ARGV[1] .. 'r:' .. hour)
  found[number] = {hour, fields}
  left = left - #fields / 2
  if left <= 0 and number < #hours then
    return {cjson.encode(found), hour}
  end
end
return {cjson.encode(found), ''}
