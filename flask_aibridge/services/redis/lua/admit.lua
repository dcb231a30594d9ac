-- Authorises a key, records the start of an interception and reads the configuration's version.
--
-- ARGV: the key's id and the hash of its secret, each "" where there is none (a key_id is checked for all but the
-- secret); then, where there is a start, its id, its JSON and the values of FIELDS. With a key, user is the key's owner
-- and the JSON has neither initiator nor key_id; both are put into it here.
--
-- Answers the version without a key; with one, as JSON, which is read faster than as many replies, [version, owner, name,
-- providers, models]; or {reason} why it is not accepted. Nothing is written for one that is not. Called again with the same start, it answers the same and records nothing.

local USED_EVERY = 60000 -- milliseconds: a key's last use is a matter of minutes, and need not cost a write each time

local key_id, secret_hash = ARGV[1], ARGV[2]
local row = {}

-- Hashes are compared, not secrets: how long the comparison takes tells nothing that helps to guess a secret.
local function fits(hash, old_hash, old_until)
  if secret_hash == hash then
    return true
  end
  return old_hash and old_until and secret_hash == old_hash and now < tonumber(old_until)
end

local function refusal(key)
  row = redis.call(
    "HMGET", key, "owner", "name", "providers", "models", "hash", "old_hash", "old_until", "expires", "revoked", "used"
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
  if not row[10] or now - tonumber(row[10]) >= USED_EVERY then
    redis.call("HSET", key, "used", whole(now))
  end
end

if ARGV[3] then
  local text, values = ARGV[4], {}
  for index = 1, #FIELDS do
    local value = ARGV[4 + index]
    values[index] = value ~= "" and value
  end
  if key_id ~= "" then
    values[1] = row[1]
    text = '{"initiator":' .. cjson.encode(row[1]) .. ',"key_id":' .. cjson.encode(key_id) .. ","
      .. string.sub(text, 2)
  end
  start(ARGV[3], text, values)
end

local version = tonumber(redis.call("GET", shard .. "config") or 0)
if key_id == "" then
  return version
end
return cjson.encode({ version, row[1], row[2], row[3], row[4] })
