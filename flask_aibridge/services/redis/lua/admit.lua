-- Authorises a key, records the start of an interception and reads the configuration's version.
--
-- KEYS[3], where there is one, is what is kept of a caller that was settled elsewhere and whose requests count.
-- ARGV: the key's id and the hash of its secret, each "" where there is none (a key_id is checked for all but the
-- secret); the rate limit, of a key that has none of its own, or of KEYS[3], "" for none, or "-" where nothing is counted;
-- then, where there is a start, its id, its JSON and the values of FIELDS. With a key, user is the key's owner and the JSON has neither initiator nor
-- key_id; both are put into it here. The requests of a key whose secret is given are counted.
--
-- Answers the version without a key; with one, as JSON, which is read faster than as many replies, [version, owner, name,
-- providers, models, limit of its own]; or {reason} why it is not accepted; or {"rate_limited", limit, microseconds until
-- one more may come}. Nothing is written for one that is not. Where there is a limit, the answer is JSON and ends with
-- the limit, how many more may come now, and the microseconds until one more may. Called again with the same start, it
-- answers the same, records nothing and counts nothing.

local USED_EVERY = 60000 -- milliseconds: a key's last use is a matter of minutes, and need not cost a write each time

local key_id, secret_hash, limit = ARGV[1], ARGV[2], ARGV[3]
local row = {}
local counted = KEYS[3]

-- Hashes are compared, not secrets: how long the comparison takes tells nothing that helps to guess a secret.
local function fits(hash, old_hash, old_until)
  if secret_hash == hash then
    return true
  end
  return old_hash and old_until and secret_hash == old_hash and now < tonumber(old_until)
end

local function refusal(key)
  row = redis.call(
    "HMGET", key, "owner", "name", "providers", "models", "hash", "old_hash", "old_until", "expires", "revoked", "used",
    "rate_limit"
  )
  if not row[1] then
    return "unknown"
  elseif row[8] and tonumber(row[8]) <= now then
    return "expired"
  elseif secret_hash ~= "" and not fits(row[5], row[6], row[7]) then
    return "wrong_secret"
  elseif row[9] then
    return "revoked"
  end
end

if key_id ~= "" then
  local key = shard .. "key:" .. key_id
  local reason = refusal(key)
  if reason then
    return { reason }
  end
  if secret_hash ~= "" and limit ~= "-" then
    limit = row[11] or limit
    counted = shard .. "rate:" .. key_id
  end
end

local remaining, next_in
if counted and limit ~= "" then
  local again = ARGV[4] and redis.call("HEXISTS", shard .. "i:" .. ARGV[4], "start") == 1
  remaining, next_in = count(counted, limit, again)
  if not remaining then
    return { "rate_limited", limit, next_in }
  end
end

if key_id ~= "" then
  if not row[10] or now - tonumber(row[10]) >= USED_EVERY then
    redis.call("HSET", shard .. "key:" .. key_id, "used", whole(now))
  end
end

if ARGV[4] then
  local text, values = ARGV[5], {}
  for index = 1, #FIELDS do
    local value = ARGV[5 + index]
    values[index] = value ~= "" and value
  end
  if key_id ~= "" then
    values[1] = row[1]
    text = '{"initiator":' .. cjson.encode(row[1]) .. ',"key_id":' .. cjson.encode(key_id) .. ","
      .. string.sub(text, 2)
  end
  start(ARGV[4], text, values)
end

local version = tonumber(redis.call("GET", shard .. "config") or 0)
local answer = { version }
if key_id ~= "" then
  answer = { version, row[1], row[2], row[3], row[4], row[11] }
elseif not remaining then
  return version
end
if remaining then
  answer[#answer + 1] = limit
  answer[#answer + 1] = remaining
  answer[#answer + 1] = next_in
end
return cjson.encode(answer)
