-- Gives a lock back, unless it has expired and is somebody else's. KEYS: the lock. ARGV: who holds it.

if redis.call("GET", KEYS[1]) == ARGV[1] then
  redis.call("DEL", KEYS[1])
end
