-- The accounting of interceptions of one shard.
--
-- KEYS  their hashes
--
-- Returns for each its start, status, end, sums of tokens and line; null where there is none.

local views = {}
for number, key in ipairs(KEYS) do
  views[number] = redis.call('HMGET', key, 'start', 'status', 'end', 't', 'line')
end
return views
