-- What each record of an interception does to the keys of its shard. Stands behind shard.lua and lineage.lua, before
-- admit.lua and record.lua.

local STREAM_LENGTH = "10000"
local STREAM_RECORD = 4096 -- bytes

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

local FIELDS = { "user", "provider", "model", "client", "source", "session", "worker", "answers" }
local INDEXED = { "user", "provider", "model", "session" }
local USUAL = { running = true, completed = true }

-- The indexes that an interception is in, by what it `is`: those of all, or, with a status, of those that ended so.
local function indexes(is, status)
  local all = shard .. (status and "x=" .. status or "x")
  local names = { all }
  for _, name in ipairs(INDEXED) do
    if is[name] then
      names[#names + 1] = all .. ":" .. name .. ":" .. is[name]
    end
  end
  return names
end

-- Lists an interception among those that ended as it did. Nearly all have completed, so that is not worth an index.
local function set_apart(id, is, status)
  if not USUAL[status] then
    for _, index in ipairs(indexes(is, status)) do
      redis.call("ZADD", index, 0, id)
    end
  end
end

-- Takes an interception out of indexes; without a status, out of those of all.
local function take_out(id, is, status)
  if not USUAL[status] then
    for _, index in ipairs(indexes(is, status)) do
      redis.call("ZREM", index, id)
    end
  end
end

-- What an interception that has started is, by `names` of its fields.
local function read_fields(id, names)
  local is = {}
  for index, value in ipairs(redis.call("HMGET", shard .. "i:" .. id, unpack(names))) do
    is[names[index]] = value
  end
  return is
end

-- Stores a start; `values` are those of FIELDS, false where there is none. The last, the id of the tool call that the
-- request answers, is kept as a link.
local function start(id, text, values)
  local key = shard .. "i:" .. id
  local known = redis.call("HMGET", key, "start", "end", "t", "calls")
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
      if name ~= "answers" then
        hash[#hash + 1] = name
        hash[#hash + 1] = values[index]
      end
    end
  end
  local line, root, parent = nil, id, nil
  if is.answers then
    line, root, parent = ancestry(id, is.user, is.session, is.answers)
    hash[#hash + 1] = "line"
    hash[#hash + 1] = line
  end
  redis.call(unpack(hash))
  for _, index in ipairs(indexes(is)) do
    redis.call("ZADD", index, 0, id)
  end
  local milliseconds = whole(started_at(id))
  if parent and not is.session then
    join(root, parent, id)
  end
  active(is.session and "s:" .. is.session or "i:" .. root, is.user, milliseconds, "GT")
  if is.model then
    seen("names:model", is.user, is.model, milliseconds)
  end
  if is.client then
    seen("names:client", is.user, is.client, milliseconds)
  end
  if known[2] then
    set_apart(id, is, redis.call("HGET", key, "status"))
  else
    redis.call("ZADD", shard .. "running", whole(now), id)
  end
  roll_up(id, is.user, is.provider, is.model, 1, known[3] and tokens_of(known[3]))
  redis.call("ZREM", shard .. "orphans", id)
  publish("InterceptionStart", id, text)
  for at = 1, #(known[4] or ""), LINK do
    take_up(id, is.user, is.session, string.sub(known[4], at, at + LINK - 1))
  end
end

-- Stores an end; `kind` is its letter in record.lua. The first one counts, but a stand-in gives way to a real one.
local function finish(id, text, status, kind)
  local key = shard .. "i:" .. id
  local known = redis.call("HMGET", key, "start", "end", "swept", "status")
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
  elseif known[4] ~= status and not (USUAL[known[4]] and USUAL[status]) then
    local is = read_fields(id, INDEXED)
    take_out(id, is, known[4])
    set_apart(id, is, status)
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

-- Stores content; `call` is the id of a tool usage's call, or "".
local function keep(kind, id, record_id, text, call)
  if redis.call("HSETNX", shard .. "c:" .. id, kind .. ":" .. record_id, text) == 0 then
    return
  end
  redis.call("ZADD", shard .. "content", 0, id)
  local known = redis.call("HMGET", shard .. "i:" .. id, "start", "calls", "user", "session")
  if not known[1] then
    wait_for_start(id)
  end
  if call ~= "" then
    make_call(id, call, unpack(known))
  end
  publish(CONTENT[kind], id, text)
end
