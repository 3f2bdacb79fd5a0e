--- queue: open and close a queue. open_queue reads and checks; it writes nothing.
--- @include now
--- @include keys
--- @include int
--- @include refuse

-- A clock that is so many us behind the last time that a queue saw was set back. Ticks run ahead of the time by less.
local SET_BACK = 1000000

--- open_queue: the queue's state, or nil and the refusal. `rules` is nil in a queue to which nobody declared any.
--- The reads double as type checks: a key of a wrong type ends the script here, before its first write.
--- repairs: a queue that has lost its config is not refused.
local function open_queue(repairs)
  local found = redis.call('HMGET', CONFIG, 'layout', 'paused', 'grace_until', 'lease', 'rules', 'gated', 'group', 'seen')
  if found[1] ~= '1' then
    if found[1] then
      return nil, refuse('LAYOUT', 'queue ' .. PREFIX .. ' has layout ' .. found[1] .. ', this redisq knows layout 1')
    end
    if not repairs and redis.call('EXISTS', MAIN, DELAYED, RETRY, PROCESSING, DLQ, MESSAGES, LEASES, META) > 0 then
      return nil, refuse('LAYOUT', 'queue ' .. PREFIX .. ' has content but no layout: its key ' .. CONFIG .. ' was deleted or evicted, or another program wrote the rest')
    end
  end
  local clock, grace, lease = natural(redis.call('GET', CLOCK) or 0), natural(found[3] or 0), natural(found[4] or 0)
  if not clock then
    return nil, refuse('CORRUPT', 'key ' .. CLOCK .. ' does not hold a number')
  end
  if not grace or not lease then
    return nil, refuse('CORRUPT', 'key ' .. CONFIG .. ' holds a grace_until or lease that is not a number')
  end
  local rules = nil
  if found[5] then
    rules = {}
    for name, value in string.gmatch(found[5], '(%S+)=(%S*)') do
      rules[name] = natural(value)
    end
    if not rules.ttl or not rules.message_ttl or not rules.max_length or not rules.keep_expired then
      return nil, refuse('CORRUPT', 'key ' .. CONFIG .. ' holds rules that are not numbers')
    end
  end
  local queue = {
    now = now_us(), clock = clock, paused = found[2] == '1', grace = grace, lease = lease, rules = rules, config = {},
    gated = found[6], group = found[7] or nil,
    main = redis.call('ZCARD', MAIN), delayed = redis.call('ZCARD', DELAYED), retry = redis.call('ZCARD', RETRY),
    processing = redis.call('ZCARD', PROCESSING), dead = redis.call('ZCARD', DLQ),
    bodies = redis.call('HLEN', MESSAGES), meta = redis.call('HLEN', META),
  }
  redis.call('ZCARD', WAKE)
  redis.call('HLEN', LEASES)
  if not found[1] then
    queue.config[1], queue.config[2] = 'layout', '1'
  end
  -- The last time that the queue saw: its clock, unless that is ahead of the time since the time was set back.
  local last = clock
  if found[8] then
    local seen, report = string.match(found[8], '^(%d+) ?([%d ]*)$')
    last, queue.seen, queue.unsaid = tonumber(seen) or clock, true, report ~= '' and report or nil
  end
  if last - queue.now > SET_BACK then
    -- Until a script moves the deadlines along: see include/clock.lua.
    queue.set_back = last - queue.now
  elseif lease > 0 and last > 0 and queue.now - last > lease / 2 then
    -- The server was away, paused, or its clock was set forward: leases look expired while their holders are well.
    queue.grace = math.max(queue.grace, queue.now + lease)
    local config = queue.config
    config[#config + 1], config[#config + 2] = 'grace_until', int(queue.grace)
  end
  return queue
end

--- take_ticks: the first of n ticks, each greater than every tick given out before.
local function take_ticks(queue, n)
  local first = math.max(queue.now, queue.clock + 1)
  queue.clock = first + n - 1
  return first
end

--- close_queue: write what open_queue and take_ticks decided.
local function close_queue(queue)
  redis.call('SET', CLOCK, int(math.max(queue.clock, queue.now)))
  local config = queue.config
  if queue.clock - queue.now > SET_BACK then
    if not queue.set_back then
      config[#config + 1], config[#config + 2] = 'seen', int(queue.now) .. (queue.unsaid and ' ' .. queue.unsaid or '')
    end
  elseif queue.seen then
    redis.call('HDEL', CONFIG, 'seen')
  end
  if #config > 0 then
    redis.call('HSET', CONFIG, unpack(config))
  end
  -- A queue that goes when nobody uses it: every call is a use, and all its keys go together.
  if queue.rules and queue.rules.ttl > 0 then
    for _, key in ipairs(KEYS) do
      redis.call('PEXPIRE', key, int(queue.rules.ttl))
    end
  end
end

--- will_touch: the script may come to keys with that beginning, whose names it does not know before its first write.
local function will_touch(queue, beginning)
  local kinds = queue.kinds or {}
  kinds[#kinds + 1], queue.kinds = beginning, kinds
end

--- check_kinds: in place of first_write, for a script that a full server is to refuse.
local function check_kinds(queue)
  if queue.kinds then
    redis.call('EXISTS', unpack(queue.kinds))
  end
end

--- first_write: before all other writes, one that changes nothing. It fails where a later one would fail halfway: the user may
--- not write to keys that the script may come to. See NEVER in include/keys.lua, too.
local function first_write(queue)
  if queue.kinds then
    redis.call('DEL', NEVER, unpack(queue.kinds))
  else
    redis.call('DEL', NEVER)
  end
end

--- wake_worker: leave the hint that there is something to do.
local function wake_worker()
  redis.call('ZADD', WAKE, 0, '1')
end
