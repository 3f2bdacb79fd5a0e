--- dedupe: "once at the door": a key names the message that stands for all of its kind, from its enqueue to its end, and
--- for its window if that is longer. Value: "id until", until: us, 0 for no window. It goes in the script that ends the
--- message. While the message lives the key has no TTL; after it, the rest of the window.
--- Mode: i the new one is ignored; p it replaces the waiting one's body; e that, and the time when it is due; r it is refused.
--- @include keys
--- @include int

local function dedupe_owner(key)
  local value = redis.call('GET', PREFIX .. ':dedup:' .. key)
  return value and string.match(value, '^(%S+) ')
end

local function dedupe_own(key, id, till)
  redis.call('SET', PREFIX .. ':dedup:' .. key, id .. ' ' .. int(till))
end

--- dedupe_end: the message with that meta record ended for good.
local function dedupe_end(id, raw_meta, now)
  if not raw_meta or not string.find(raw_meta, 'dedupe=', 1, true) then
    return
  end
  local key = string.match(string.match(raw_meta, '^(.-) ?text=') or raw_meta, 'dedupe=(%S+)')
  local name = key and PREFIX .. ':dedup:' .. key
  local owner, till = string.match(name and redis.call('GET', name) or '', '^(%S+) (%d+)$')
  if owner == id then
    local left = math.floor((tonumber(till) - now) / 1000)
    if left > 0 then
      redis.call('PEXPIRE', name, int(left))
    else
      redis.call('DEL', name)
    end
  end
end
