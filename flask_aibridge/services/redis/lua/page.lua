-- Walks the interceptions of one shard from new to old, and keeps those that match.
--
-- KEYS     the indexes that hold every match; the shortest one is walked. Where there is but one and nothing to count,
--          its length is not asked for: to find that touches more memory, the longer it is
-- ARGV[1]  what every key of the shard begins with
-- ARGV[2]  the highest id and ARGV[3] the lowest, as ZRANGE … BYLEX takes them
-- ARGV[4]  how many matches are wanted, at least 1; or 0: they are counted and not returned
-- ARGV[5]  how many interceptions are looked at
-- ARGV[6…] triples: a field of the interception's hash, its value, and the number of the index that holds just the
--          interceptions with that value (0: none does)
--
-- Returns the ids found, newest first, with spaces between them; how many were found; the id that was looked at last, or
-- '' where the walk has come to its end; and how many there were to look at in the index, or 0 where that was not asked.

local shard, highest, lowest = ARGV[1], ARGV[2], ARGV[3]
local wanted, allowed = tonumber(ARGV[4]), tonumber(ARGV[5])

local walked, length = 1, 0
if #KEYS > 1 or wanted == 0 then
  for number, key in ipairs(KEYS) do
    local candidates = redis.call('ZLEXCOUNT', key, lowest, highest)
    if number == 1 or candidates < length then
      walked, length = number, candidates
    end
  end
end

local fields, values = {}, {}
for i = 6, #ARGV, 3 do
  if tonumber(ARGV[i + 2]) ~= walked then
    fields[#fields + 1], values[#values + 1] = ARGV[i], ARGV[i + 1]
  end
end

if #fields == 0 then
  if wanted == 0 then
    return {'', length, '', length}
  end
  allowed = math.min(allowed, wanted)
end

local function matches(id)
  if #fields == 0 then
    return true
  end
  local stored = redis.call('HMGET', shard .. 'i:' .. id, unpack(fields))
  for i, value in ipairs(values) do
    if stored[i] ~= value then
      return false
    end
  end
  return true
end

local ids = redis.call('ZRANGE', KEYS[walked], highest, lowest, 'BYLEX', 'REV', 'LIMIT', 0, allowed)
local found, number = {}, 0
for _, id in ipairs(ids) do
  if matches(id) then
    number = number + 1
    if wanted > 0 then
      found[number] = id
      if number == wanted then
        return {table.concat(found, ' '), number, id, length}
      end
    end
  end
end
return {table.concat(found, ' '), number, #ids < allowed and '' or ids[#ids], length}
