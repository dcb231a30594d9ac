-- Everything that is recorded of one interception, at one moment.
--
-- KEYS[1]  the hash of its accounting
-- KEYS[2]  the hash of its content
--
-- Returns both, each as fields and values in turn.

return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
