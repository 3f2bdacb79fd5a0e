--- dedupe: "once at the door": a key names the message that stands for all of its kind, from its enqueue to its end, and
--- for its window if that is longer. Value: "id until"; until: us, 0 for no window. While the message lives the key has no
--- TTL; the script that ends the message deletes it, or leaves it the rest of the window. Its name is in the message's meta.
--- @include keys
--- @include int

--- dedupe_owner: the id that a key names, or nil.
local function dedupe_owner(key)
  local value = redis.call('GET', PREFIX .. ':dedupe:' .. key)
  return value and string.match(value, '^(%S+) ')
end

local function dedupe_own(key, id, till)
  redis.call('SET', PREFIX .. ':dedupe:' .. key, id .. ' ' .. int(till))
end

--- dedupe_key: the key that a meta record names, or nil.
local function dedupe_key(raw_meta)
  if not raw_meta or not string.find(raw_meta, 'dedupe=', 1, true) then
    return nil
  end
  return string.match(string.match(raw_meta, '^(.-) ?text=') or raw_meta, 'dedupe=(%S+)')
end

--- dedupe_end: the message with that meta record ended for good, or died.
local function dedupe_end(id, raw_meta, now)
  local key = dedupe_key(raw_meta)
  if not key then
    return
  end
  local name = PREFIX .. ':dedupe:' .. key
  local owner, till = string.match(redis.call('GET', name) or '', '^(%S+) (%d+)$')
  if owner == id then
    local left = math.floor((tonumber(till) - now) / 1000)
    if left > 0 then
      redis.call('PEXPIRE', name, int(left))
    else
      redis.call('DEL', name)
    end
  end
end
