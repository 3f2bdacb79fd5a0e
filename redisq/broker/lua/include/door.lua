--- door: who stands for a dedupe key. See include/dedupe.lua.
--- @include keys
--- @include int

--- dedupe_owner: the id that a key names, or nil.
local function dedupe_owner(key)
  local value = redis.call('GET', PREFIX .. ':dedupe:' .. key)
  return value and string.match(value, '^(%S+) ')
end

--- dedupe_own: from now on a key names that message.
local function dedupe_own(key, id, till)
  redis.call('SET', PREFIX .. ':dedupe:' .. key, id .. ' ' .. int(till))
end
