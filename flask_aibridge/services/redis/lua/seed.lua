-- Fills a table of configuration that never was. KEYS: the version, the table, the digests. ARGV: the table's name, the
-- digest, 1 where the version counts the changes of this table, else 0; then names and texts. Answers {digest that it was
-- seeded from before}, or the version.
--
-- A row that is there already stays: whoever put it there knew better than what the table is seeded from.

local before = redis.call("HGET", KEYS[3], ARGV[1])
if before then
  return { before }
end
for index = 4, #ARGV, 2 do
  redis.call("HSETNX", KEYS[2], ARGV[index], ARGV[index + 1])
end
redis.call("HSET", KEYS[3], ARGV[1], ARGV[2])
return redis.call("INCRBY", KEYS[1], ARGV[3])
