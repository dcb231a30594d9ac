-- Deletes a row of configuration. KEYS: the version and the table. ARGV: name, and 1 where the version counts the changes
-- of this table, else 0. Answers the version, or null where there is no such row.

if redis.call("HDEL", KEYS[2], ARGV[1]) == 0 then
  return false
end
return redis.call("INCRBY", KEYS[1], ARGV[2])
