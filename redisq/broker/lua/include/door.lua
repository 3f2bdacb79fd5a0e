--- door: who stands for a dedupe key. See include/dedupe.lua.
--- @include queue
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
--- ends: what window_end said of the key.
local function dedupe_owner(key, now, ends)
  local owner, till = string.match(redis.call('GET', PREFIX .. ':dedupe:' .. key) or '', '^(%S+) (%d+)$')
  if owner and (ends or tonumber(till)) <= now and not is_alive(owner) then
    return nil
  end
  return owner
end

--- dedupe_own: from now on a key names that message.
local function dedupe_own(key, id, till)
  redis.call('SET', PREFIX .. ':dedupe:' .. key, id .. ' ' .. int(till))
end

--- window_end: when the window of a key ends that some message stands for, if that is further ahead than a window of that
--- length can end: the key is from before the clock was set back, and has as much left as it had then. Else nil.
local function window_end(key, queue, window)
  if queue.clock - queue.now <= SET_BACK then
    return nil
  end
  local till = tonumber(string.match(redis.call('GET', PREFIX .. ':dedupe:' .. key) or '', '^%S+ (%d+)$') or nil)
  return till and till > queue.now + window and queue.now + math.min(math.max(till - queue.clock, 0), window) or nil
end

--- shorten_window: the window of a key ends then. The key goes with it, unless its message is alive.
local function shorten_window(key, now, till)
  local owner = string.match(redis.call('GET', PREFIX .. ':dedupe:' .. key), '^(%S+)')
  if is_alive(owner) then
    dedupe_own(key, owner, till)
  elseif till > now then
    redis.call('SET', PREFIX .. ':dedupe:' .. key, owner .. ' ' .. int(till), 'PX', int(math.ceil((till - now) / 1000)))
  else
    redis.call('DEL', PREFIX .. ':dedupe:' .. key)
  end
end
