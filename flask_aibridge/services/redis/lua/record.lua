-- Stores records of one shard: each once, in any order.
--
-- ARGV is one record after the other. The first of its arguments is a letter, the interception's 32 digits, and a rest:
--   s  start                     then its JSON and the values of FIELDS, each "" where null
--   e  end, rest: its status     then its JSON
--   i  the same of a worker that stops: it gives way to a real end
--   w  the same, written by a sweep: it ends nothing that is not there
--   u  usage, rest: its id       then its JSON and its counts, as [input, output, cache_read, cache_write, {extra}]
--   p, m  content: prompt, thought; rest: its id; then its JSON
--   t  content: tool usage, rest: its id; then its JSON and the id of the tool call, "" where null

local at = 1
while at <= #ARGV do
  local kind, id, rest = string.sub(ARGV[at], 1, 1), string.sub(ARGV[at], 2, 33), string.sub(ARGV[at], 34)
  local text = ARGV[at + 1]
  at = at + 2
  if kind == "s" then
    local values = {}
    for index = 1, #FIELDS do
      local value = ARGV[at + index - 1]
      values[index] = value ~= "" and value
    end
    at = at + #FIELDS
    start(id, text, values)
  elseif kind == "u" then
    use(id, rest, text, cjson.decode(ARGV[at]))
    at = at + 1
  elseif kind == "e" or kind == "i" or kind == "w" then
    finish(id, text, rest, kind)
  elseif kind == "t" then
    keep(kind, id, rest, text, ARGV[at])
    at = at + 1
  else
    keep(kind, id, rest, text, "")
  end
end
