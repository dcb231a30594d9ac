-- Deletes a batch of what a shard has kept for long enough. Stands behind shard.lua, lineage.lua and interception.lua.
--
-- ARGV: milliseconds for which interceptions are kept, and for which their content is, each 0 for ever; for which what
-- has no start is kept, at most; and how much is deleted at once. Answers how much was, so that the caller knows whether
-- to call again.

local kept, content_kept, batch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local orphans_kept = tonumber(ARGV[3])
local deleted = 0

local function ids_before(name, milliseconds)
  local first_kept = string.format("(%012x", math.max(milliseconds, 0))
  return redis.call("ZRANGEBYLEX", shard .. name, "-", first_kept, "LIMIT", 0, batch)
end

-- A session or a name goes with the last interception that bears it.
local function unsee(name, member, milliseconds)
  local last = redis.call("ZSCORE", shard .. name, member)
  if last and tonumber(last) < milliseconds then
    redis.call("ZREM", shard .. name, member)
  end
end

local function forget(id, milliseconds)
  local is = read_fields(id, FIELDS)
  local known = redis.call("HMGET", shard .. "i:" .. id, "line", "calls", "status")
  take_out(id, is)
  take_out(id, is, known[3] or "running")
  local root = unlink(id, is.user, is.session, known[1], known[2])
  local session = is.session and "s:" .. is.session or "i:" .. root
  unsee("sessions", cjson.encode({ session, is.user or "" }), milliseconds)
  if is.user then
    unsee("sessions:" .. is.user, session, milliseconds)
  end
  for _, kind in ipairs({ "model", "client" }) do
    if is[kind] then
      unsee("names:" .. kind, is[kind], milliseconds)
      if is.user then
        unsee("names:" .. kind .. ":" .. is.user, is[kind], milliseconds)
      end
    end
  end
  for _, name in ipairs({ "running", "content", "orphans" }) do
    redis.call("ZREM", shard .. name, id)
  end
  redis.call("UNLINK", shard .. "i:" .. id, shard .. "c:" .. id)
  deleted = deleted + 1
end

if kept > 0 then
  orphans_kept = math.min(kept, orphans_kept)
end
for _, id in ipairs(ids_before("orphans", now - orphans_kept)) do
  forget(id, now - orphans_kept)
end

if kept > 0 then
  local first = now - kept
  for _, id in ipairs(ids_before("x", first)) do
    forget(id, first)
  end
  local hours = redis.call("ZRANGEBYLEX", shard .. "hours", "-", "(" .. hour_of(math.max(first, 0)), "LIMIT", 0, batch)
  for _, hour in ipairs(hours) do
    redis.call("UNLINK", shard .. "r:" .. hour)
    redis.call("ZREM", shard .. "hours", hour)
    deleted = deleted + 1
  end
end

if content_kept > 0 then
  for _, id in ipairs(ids_before("content", now - content_kept)) do
    redis.call("UNLINK", shard .. "c:" .. id)
    redis.call("ZREM", shard .. "content", id)
    deleted = deleted + 1
  end
end

-- The stream holds both, content too; it is short, so this is quick.
local shorter = kept
if content_kept > 0 and (kept == 0 or content_kept < kept) then
  shorter = content_kept
end
if shorter > 0 then
  redis.call("XTRIM", shard .. "stream", "MINID", whole(math.max(now - shorter, 0)))
end

return deleted
