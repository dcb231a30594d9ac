-- What each record of an interception does to the keys of its shard. Stands before admit.lua and record.lua.
--
-- KEYS[1] is what every key of the shard begins with, hash tag included; every other name is made of it. Redis asks for
-- all keys to be declared so that a cluster can tell the node; the tag puts all of them in the slot of KEYS[1], so the
-- node is the right one. KEYS[2], the shard's index, is declared so that there are two keys and one of them, KEYS[1],
-- never exists: while the slot moves to another node, a cluster then answers TRYAGAIN instead of running the script on
-- half of the slot's keys.
--
-- Times are the server's own, for the clocks of its clients differ. Scripts are replicated by their effects (the
-- default since Redis 5), so they may ask for the time and still write.

local shard = KEYS[1]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local STREAM_LENGTH = "10000"
local STREAM_RECORD = 4096 -- bytes

local function whole(number) -- Lua's own text of a large number has an exponent
  return string.format("%.0f", number)
end

local function started_at(id) -- an id begins with the milliseconds of its interception's start
  return tonumber(string.sub(id, 1, 12), 16)
end

local function hour_of(milliseconds) -- yyyymmddhh in UTC; the calendar as in Howard Hinnant's "civil_from_days"
  local hours = math.floor(milliseconds / 3600000)
  local days = math.floor(hours / 24) + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor(
    (day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365
  )
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153) -- counted from March, so that a leap day is the last of its year
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  return string.format("%04d%02d%02d%02d", year, month, day, hours % 24)
end

-- What is long is not repeated in the stream, whose length is bounded in entries alone: a consumer reads it by the id.
local function publish(kind, id, text)
  local field, value = "record", text
  if #text > STREAM_RECORD then
    field, value = "interception", id
  end
  redis.call("XADD", shard .. "stream", "MAXLEN", "~", STREAM_LENGTH, "*", "kind", kind, field, value)
end

-- Something arrived before the start that it belongs to. Where that never comes, retention finds it here.
local function wait_for_start(id)
  redis.call("ZADD", shard .. "orphans", 0, id)
end

-- Tokens of one interception: {input, output, cache_read, cache_write, {extra name = count}}.
local COUNTS = { "input", "output", "cache_read", "cache_write" }

local function text_of(tokens)
  local extra = {}
  for name, count in pairs(tokens[5]) do
    extra[#extra + 1] = cjson.encode(name) .. ":" .. whole(count)
  end
  local parts = {}
  for index, name in ipairs(COUNTS) do
    parts[index] = '"' .. name .. '":' .. whole(tokens[index])
  end
  return "{" .. table.concat(parts, ",") .. ',"extra":{' .. table.concat(extra, ",") .. "}}"
end

local function tokens_of(text)
  local document = cjson.decode(text)
  return { document.input, document.output, document.cache_read, document.cache_write, document.extra }
end

local function add(tokens, more)
  for index = 1, 4 do
    tokens[index] = tokens[index] + more[index]
  end
  for name, count in pairs(more[5]) do
    tokens[5][name] = (tokens[5][name] or 0) + count
  end
  return tokens
end

local function roll_up(id, user, provider, model, requests, tokens)
  local hour = hour_of(started_at(id))
  local key = shard .. "r:" .. hour
  local group = "[" .. cjson.encode(user or "") .. "," .. cjson.encode(provider or "") .. ","
    .. cjson.encode(model or "") .. ","
  local function count(name, number)
    if number > 0 then
      redis.call("HINCRBY", key, group .. cjson.encode(name) .. "]", whole(number))
    end
  end
  redis.call("ZADD", shard .. "hours", 0, hour)
  count("requests", requests)
  if tokens then
    for index, name in ipairs(COUNTS) do
      count(name, tokens[index])
    end
    for name, number in pairs(tokens[5]) do
      count("x:" .. name, number)
    end
  end
end

local function seen(name, user, member, milliseconds)
  redis.call("ZADD", shard .. name, "GT", milliseconds, member)
  if user then
    redis.call("ZADD", shard .. name .. ":" .. user, "GT", milliseconds, member)
  end
end

local FIELDS = { "user", "provider", "model", "client", "source", "session", "worker" }
local INDEXED = { "user", "provider", "model", "session" }

-- Stores a start; `values` are those of FIELDS, false where there is none.
local function start(id, text, values)
  local key = shard .. "i:" .. id
  local known = redis.call("HMGET", key, "start", "end", "t")
  if known[1] then
    return
  end
  local hash, is = { "HSET", key, "start", text }, {}
  if not known[2] then
    hash[5], hash[6] = "status", "running"
  end
  for index, name in ipairs(FIELDS) do
    if values[index] then
      is[name] = values[index]
      hash[#hash + 1] = name
      hash[#hash + 1] = values[index]
    end
  end
  redis.call(unpack(hash))
  redis.call("ZADD", shard .. "x", 0, id)
  for _, name in ipairs(INDEXED) do
    if is[name] then
      redis.call("ZADD", shard .. "x:" .. name .. ":" .. is[name], 0, id)
    end
  end
  local milliseconds = whole(started_at(id))
  local session = is.session and "s:" .. is.session or "i:" .. id
  redis.call("ZADD", shard .. "sessions", "GT", milliseconds, cjson.encode({ session, is.user or "" }))
  if is.user then
    redis.call("ZADD", shard .. "sessions:" .. is.user, "GT", milliseconds, session)
  end
  if is.model then
    seen("names:model", is.user, is.model, milliseconds)
  end
  if is.client then
    seen("names:client", is.user, is.client, milliseconds)
  end
  if not known[2] then
    redis.call("ZADD", shard .. "running", whole(now), id)
  end
  roll_up(id, is.user, is.provider, is.model, 1, known[3] and tokens_of(known[3]))
  redis.call("ZREM", shard .. "orphans", id)
  publish("InterceptionStart", id, text)
end

-- Stores an end; `kind` is its letter in record.lua. The first one counts, but a stand-in gives way to a real one.
local function finish(id, text, status, kind)
  local key = shard .. "i:" .. id
  local known = redis.call("HMGET", key, "start", "end", "swept")
  local swept = kind ~= "e"
  if known[2] and (swept or not known[3]) then
    return
  end
  if kind == "w" and not known[1] then
    redis.call("ZREM", shard .. "running", id) -- the interception is gone, whoever deleted it
    return
  end
  redis.call("HSET", key, "end", text, "status", status)
  if swept then
    redis.call("HSET", key, "swept", "1")
  elseif known[3] then
    redis.call("HDEL", key, "swept")
  end
  redis.call("ZREM", shard .. "running", id)
  if not known[1] then
    wait_for_start(id)
  end
  publish("InterceptionEnd", id, text)
end

local function use(id, record_id, text, tokens)
  local key = shard .. "i:" .. id
  if redis.call("HSETNX", key, "u:" .. record_id, text) == 0 then
    return
  end
  local known = redis.call("HMGET", key, "start", "t", "user", "provider", "model")
  local sums = known[2] and add(tokens_of(known[2]), tokens) or tokens
  redis.call("HSET", key, "t", text_of(sums))
  if known[1] then
    roll_up(id, known[3], known[4], known[5], 0, tokens)
  else
    wait_for_start(id)
  end
  publish("TokenUsage", id, text)
end

local CONTENT = { p = "PromptUsage", t = "ToolUsage", m = "ModelThought" }

local function keep(kind, id, record_id, text)
  if redis.call("HSETNX", shard .. "c:" .. id, kind .. ":" .. record_id, text) == 0 then
    return
  end
  redis.call("ZADD", shard .. "content", 0, id)
  if redis.call("HEXISTS", shard .. "i:" .. id, "start") == 0 then
    wait_for_start(id)
  end
  publish(CONTENT[kind], id, text)
end
