-- Which interception goes on with which: the turns of an agent's loop are a thread. Stands behind shard.lua.
--
-- A request whose last word is the result of a tool call answers that call. The parent of its interception is the last
-- one before it that made a call of that id, for the same user, in the same session and shard. The root is where
-- parents end. Both follow from what is recorded, whatever the order it came in. By the same user, since ids of calls come
-- from callers; the last one before, since some providers only number their calls, which also rules out circles.
--
-- `calls` and `answers` hold links, with the id of the interception behind each. A link stands for user, session and
-- call: some digits of a digest, so that no name makes an index long.

local LINK = 20 -- digits: 80 bits, which nobody finds a second text for
local MAX_CALLS = 1000 -- of one interception; the longest answers have a few dozen
local MAX_MOVED = 10000 -- interceptions, which one record puts into another thread: a tenth of a second at the very most

local function digest(text)
  return string.sub(redis.sha1hex(text), 1, LINK)
end

local function link_of(user, session, call)
  user, session = user or "", session or ""
  return digest(#user .. ":" .. user .. #session .. ":" .. session .. call)
end

-- `line` is a link, behind which are the parent's and the root's id, once they are known.
local function root_in(line, id)
  return line and #line > LINK and string.sub(line, LINK + 33) or id
end

local function root_of(id)
  return root_in(redis.call("HGET", shard .. "i:" .. id, "line"), id)
end

-- The line of an interception that answers a call, its root, and its parent: itself and none, where nothing is known
-- that made the call.
local function ancestry(id, user, session, call)
  local link = link_of(user, session, digest(call))
  redis.call("ZADD", shard .. "answers", 0, link .. id)
  local made = redis.call("ZRANGE", shard .. "calls", "(" .. link .. id, "(" .. link, "BYLEX", "REV", "LIMIT", 0, 1)[1]
  if not made then
    return link, id
  end
  local parent = string.sub(made, LINK + 1)
  local root = root_of(parent)
  return link .. parent .. root, root, parent
end

-- What answers a call: what began later than the interception that made it, and no later than the next that made one.
local function answers_to(link, id)
  local after, last = "(" .. link .. id, "(" .. link .. "g"
  local first = redis.call("ZRANGE", shard .. "answers", after, last, "BYLEX", "LIMIT", 0, 1)
  if not first[1] then -- as there mostly is none when a call is recorded
    return first
  end
  local following = redis.call("ZRANGE", shard .. "calls", after, last, "BYLEX", "LIMIT", 0, 1)[1]
  last = following and "[" .. following or last
  return redis.call("ZRANGE", shard .. "answers", after, last, "BYLEX", "LIMIT", 0, MAX_MOVED)
end

-- Notes when a session was last active; `how` is "GT" where it may have been later, else "CH".
local function active(session, user, milliseconds, how)
  redis.call("ZADD", shard .. "sessions", how, milliseconds, cjson.encode({ session, user or "" }))
  if user then
    redis.call("ZADD", shard .. "sessions:" .. user, how, milliseconds, session)
  end
end

-- Adds to a thread without a session of its client's. The root is listed with the first that goes on with it.
local function join(root, parent, id)
  if parent == root then
    redis.call("ZADD", shard .. "x:thread:" .. root, 0, root, 0, id)
  else
    redis.call("ZADD", shard .. "x:thread:" .. root, 0, id)
  end
end

-- After some have left a thread without a session of its client's: when it was last active, if it still is one.
local function shorten(root, user)
  local thread, session = shard .. "x:thread:" .. root, "i:" .. root
  local last = redis.call("ZRANGE", thread, "+", "-", "BYLEX", "REV", "LIMIT", 0, 1)[1]
  if not last then
    redis.call("ZREM", shard .. "sessions", cjson.encode({ session, user or "" }))
    if user then
      redis.call("ZREM", shard .. "sessions:" .. user, session)
    end
    return
  end
  active(session, user, whole(started_at(last)), "CH")
  if last == root then
    redis.call("DEL", thread)
  end
end

-- The interceptions that answer what one has called, by the links of its calls.
local function children(id, user, session, calls)
  local found = {}
  for at = 1, #calls, LINK do
    local link = link_of(user, session, string.sub(calls, at, at + LINK - 1))
    for _, answer in ipairs(answers_to(link, id)) do
      found[#found + 1] = string.sub(answer, LINK + 1)
    end
  end
  return found
end

-- Puts an interception below another, and whatever is below it into the same thread; but for those that a server that
-- is short of memory has evicted.
local function hang(id, parent, root, user, session)
  local left, moved, last = { { id, parent } }, 0, id
  local before = root_of(id)
  while #left > 0 and moved < MAX_MOVED do
    local each, above = unpack(table.remove(left))
    local key = shard .. "i:" .. each
    local known = redis.call("HMGET", key, "line", "calls")
    if known[1] then
      redis.call("HSET", key, "line", string.sub(known[1], 1, LINK) .. above .. root)
      if not session and before ~= root then
        redis.call("ZREM", shard .. "x:thread:" .. before, each)
        join(root, above, each)
      end
      for _, child in ipairs(children(each, user, session, known[2] or "")) do
        left[#left + 1] = { child, each }
      end
      moved, last = moved + 1, each > last and each or last
    end
  end
  if not session and before ~= root then
    shorten(before, user)
    active("i:" .. root, user, whole(started_at(last)), "GT")
  end
end

-- A call that an interception has made is known, and so is its start: what waits for it finds it.
local function take_up(id, user, session, call)
  local link = link_of(user, session, call)
  redis.call("ZADD", shard .. "calls", 0, link .. id)
  for _, answer in ipairs(answers_to(link, id)) do
    hang(string.sub(answer, LINK + 1), id, root_of(id), user, session)
  end
end

-- Keeps the id of a call with the interception that made it: in `calls`, sorted digests without anything between them.
-- `is_started` is whether its start is known; `calls`, `user` and `session` are what is stored of it.
local function make_call(id, call_id, is_started, calls, user, session)
  local call, at = digest(call_id), 1
  calls = calls or ""
  while at <= #calls and string.sub(calls, at, at + LINK - 1) < call do
    at = at + LINK
  end
  if string.sub(calls, at, at + LINK - 1) == call or #calls >= MAX_CALLS * LINK then
    return
  end
  redis.call("HSET", shard .. "i:" .. id, "calls", string.sub(calls, 1, at - 1) .. call .. string.sub(calls, at))
  if is_started then
    take_up(id, user, session, call)
  end
end

-- Takes an interception that is deleted out of everything here; answers its root.
local function unlink(id, user, session, line, calls)
  if line then
    redis.call("ZREM", shard .. "answers", string.sub(line, 1, LINK) .. id)
  end
  for at = 1, #(calls or ""), LINK do
    redis.call("ZREM", shard .. "calls", link_of(user, session, string.sub(calls, at, at + LINK - 1)) .. id)
  end
  local root = root_in(line, id)
  if not session then
    redis.call("ZREM", shard .. "x:thread:" .. root, id)
  end
  return root
end
