--- door: who stands for a dedupe key. See include/dedupe.lua.
--- @include keys
--- @include int

--- is_alive: whether a message has a body, and waits or is leased.
local function is_alive(id)
  if redis.call('HEXISTS', MESSAGES, id) == 1 then
    for _, key in ipairs({ MAIN, PROCESSING, DELAYED, RETRY }) do
      if redis.call('ZSCORE', key, id) then
        return true
      end
    end
  end
  return false
end

--- dedupe_owner: the id of the message that a key stands for, or nil. A message that is not alive counts only within the
--- key's window: it was deleted or evicted past the scripts, and would swallow all later messages of its kind for ever.
local function dedupe_owner(key, now)
  local owner, till = string.match(redis.call('GET', PREFIX .. ':dedupe:' .. key) or '', '^(%S+) (%d+)$')
  if owner and tonumber(till) <= now and not is_alive(owner) then
    return nil
  end
  return owner
end

--- dedupe_own: from now on a key names that message.
local function dedupe_own(key, id, till)
  redis.call('SET', PREFIX .. ':dedupe:' .. key, id .. ' ' .. int(till))
end
