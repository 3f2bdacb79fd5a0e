--- enqueue: accept n messages, all or none; a message whose id is in the queue already is left as it is.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4..] (id, body, options)*
---   id       string
---   body     bytes    opaque
---   options  string   '' or timing or "timing|descriptor|cap|dedupe|definitions|group"; without "|group" when there is none
---   timing       "head due" or "head due expires": head: head start by priority, us, or "-n" to stand back; due: '0' now,
---                '+n' n us from now, 'n' at that time, us; expires: dropped if not leased by then, as due
---   descriptor   what it waits for besides its turn: see include/descriptor.lua; '' for nothing
---   cap          integer: it is refused when so many of its lane wait or run; '' for no limit
---   dedupe       "mode window key": see include/dedupe.lua; window: us; mode: ignore, the new one is; replace, it gives
---                its body to the one that waits; extend, that, and its due time, when both are due later; '' for none
---   definitions  "class=limit;"*: limits that are written where none of that class is known
---   group        the prefix of a group's keys: a queue that is in none joins it
--- Returns: list of what was not stored as a message of its own: "id", it was there already; "id=owner", the message
---   `owner` stands for it; "id=", its lane has `cap` messages
--- @include queue
--- @include ledger
--- @include meta

--- moment: the time that '+n' or 'n' means, or nil. Messages of one call that are due together keep their order: the
--- few microseconds added are below any clock's error.
local function moment(queue, sign, text, added)
  local value = natural(text)
  if value and sign == '+' then
    value = queue.now + value
  end
  if value and value > queue.now then
    value = value + added
  end
  return value and value < 9007199254740992 and value or nil
end

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local count = (#ARGV - 3) / 3
if count < 1 or count > 1000 or count ~= math.floor(count) then
  return refuse('ARGUMENT', 'messages: ' .. (#ARGV - 3) .. ' values, want 1 to 1000 times id, body, options')
end

local ids = {}
for i = 1, count do
  ids[i] = ARGV[1 + 3 * i]
end
local present = redis.call('HMGET', MESSAGES, unpack(ids))
-- Somebody deleted bodies, or the server evicts keys: an id without one is in the queue all the same.
if queue.main + queue.delayed + queue.retry + queue.processing + queue.dead > queue.bodies then
  for i, id in ipairs(ids) do
    for _, key in ipairs({ MAIN, DELAYED, RETRY, PROCESSING, DLQ }) do
      present[i] = present[i] or redis.call('ZSCORE', key, id)
    end
  end
end
local message_ttl, max_length = 0, 0
if queue.rules then
  message_ttl, max_length = queue.rules.message_ttl, queue.rules.max_length
end
local first = take_ticks(queue, count)
local unsent, seen, stored = {}, {}, 0
local bodies, ready, delayed, metas = {}, {}, {}, {}
local earliest = nil

--- open_door: what becomes of messages with gates or a dedupe key, and of all in a queue with gates.
local function open_door()
--- @include flows
--- @include door
--- @include dedupe
  local gates = open_flows(queue)
  local door = { woken = false }
  local needs, lines, definitions, lengths, owners, disowned, shortened, joins = {}, {}, {}, {}, {}, {}, {}, nil

  --- hand_over: a message that waits takes the body, and perhaps the due time, of a new one of its kind; false: none waits.
  local function hand_over(owner, body, mode, due)
    local was_due = tonumber(redis.call('ZSCORE', DELAYED, owner) or nil)
    if not was_due and not redis.call('ZSCORE', MAIN, owner) and not redis.call('ZSCORE', RETRY, owner) then
      return false
    end
    bodies[#bodies + 1], bodies[#bodies + 2] = owner, body
    disowned[#disowned + 1] = owner
    if mode == 'extend' and was_due and due and due > queue.now then
      delayed[#delayed + 1], delayed[#delayed + 2] = due, owner
      earliest = math.min(earliest or due, due)
      local meta = read_meta(redis.call('HGET', META, owner))
      if meta.score then
        meta.score = meta.score + due - was_due
        metas[#metas + 1], metas[#metas + 2] = owner, write_meta(meta)
      end
    end
    return true
  end

  --- door.read: descriptor, cap and dedupe of a message, each nil without; fourth: what is wrong.
  function door.read(id, text)
    local raw, cap, dedupe_text, defined, group = string.match(text, '^([^|]*)|(%d*)|([^|]*)|([^|]*)|?([^|%s]*)$')
    if not raw then
      return nil, nil, nil, 'options'
    end
    local descriptor, dedupe = nil, nil
    if raw ~= '' then
      descriptor = read_descriptor(raw)
      if not is_descriptor(descriptor) or string.find(id, '^[~!]') then
        return nil, nil, nil, 'descriptor'
      end
      descriptor.line = raw
      definitions[defined] = true
      if group ~= '' and not queue.group and not joins then
        check_group(group)
        joins = group
      end
    end
    if dedupe_text ~= '' then
      local mode, window, key = string.match(dedupe_text, '^(%l+) (%d+) (%S+)$')
      dedupe = { mode = mode, window = duration(window), key = key }
      if not dedupe.window or not (mode == 'ignore' or mode == 'replace' or mode == 'extend') then
        return nil, nil, nil, 'dedupe'
      end
    end
    return descriptor, natural(cap), dedupe
  end

  --- door.stand_in: the id of the message that stands for a new one, or nil.
  function door.stand_in(id, body, dedupe, due)
    local own = owners[dedupe.key]
    if not own then
      local ends = dedupe.window > 0 and window_end(dedupe.key, queue, dedupe.window) or nil
      local owner = dedupe_owner(dedupe.key, queue.now, ends)
      shortened[dedupe.key] = owner and ends
      return owner and owner ~= id and (dedupe.mode == 'ignore' or hand_over(owner, body, dedupe.mode, due)) and owner or nil
    end
    -- Both came in this call: the last one counts.
    if dedupe.mode ~= 'ignore' then
      bodies[#bodies + 1], bodies[#bodies + 2] = own.id, body
      if dedupe.mode == 'extend' and own.is_delayed and due and due > queue.now then
        delayed[#delayed + 1], delayed[#delayed + 2] = due, own.id
        earliest = math.min(earliest or due, due)
      end
    end
    return own.id
  end

  --- door.own: the message is stored, and stands for its dedupe key.
  function door.own(id, dedupe, due)
    local till = dedupe.window > 0 and queue.now + dedupe.window or 0
    owners[dedupe.key] = { id = id, till = till, is_delayed = due and due > queue.now }
  end

  --- door.has_room: whether the lane of a message takes one more. What is delayed is not in its lane yet.
  function door.has_room(descriptor, cap, due)
    local flow = descriptor.flow
    if descriptor.kind == 'F' then
      return true
    end
    local length = lengths[flow] or gates.lane_length(flow)
    if length >= cap then
      return false
    end
    lengths[flow] = due and due > queue.now and length or length + 1
    return true
  end

  --- door.need: the message is stored, and has gates.
  function door.need(id, line)
    needs[#needs + 1], needs[#needs + 2], lines[id] = id, line, line
  end

  --- door.close: what was read is written, after all else.
  function door.close()
    if #disowned > 0 then
      -- Who lost its lease on the old body has nothing to acknowledge any more: the new one has to run.
      redis.call('HDEL', LEASES, unpack(disowned))
    end
    for key, owner in pairs(owners) do
      dedupe_own(key, owner.id, owner.till)
    end
    if #needs > 0 then
      if joins then
        join_group(queue, joins)
        gates.limits = joins .. ':limits'
      end
      for defined in pairs(definitions) do
        for class, limit in string.gmatch(defined, '([^=;]+)=([^;]+);') do
          redis.call('HSETNX', gates.limits, class, limit)
        end
      end
      gates.need(needs)
    end
    if not queue.gated and #needs == 0 then
      door.woken = #ready > 0
      return
    end
    if not queue.gated then
      local config = queue.config
      config[#config + 1], config[#config + 2] = 'gated', queue.main > 0 and '-inf ' .. int(first - 1) or '1'
    end
    for i = 1, #ready, 2 do
      gates.admit(ready[i + 1], int(ready[i]), lines[ready[i + 1]])
    end
    gates.arrange()
    door.woken = gates.woken
  end

  --- door.shorten: windows that were set before the clock was set back.
  function door.shorten()
    for key, till in pairs(shortened) do
      if till and not owners[key] then
        shorten_window(key, queue.now, till)
      end
    end
  end

  --- door.drop: messages that wait go, to make room.
  function door.drop(ids)
    local raws, old = gates.of(ids), metas_of({ meta = queue.meta + #metas }, ids)
    for i, id in ipairs(ids) do
      dedupe_end(id, old[i], queue.now)
      gates.forget(id, raws[i], true)
    end
    gates.arrange()
    gates.close()
  end

  return door
end
local door = queue.gated and open_door()

for i = 1, count do
  local id, body = ids[i], ARGV[2 + 3 * i]
  if present[i] or seen[id] then
    unsent[#unsent + 1] = id
  else
    seen[id] = true
    local options, tick = ARGV[3 + 3 * i], first + i - 1
    local head, due, expires, meta, descriptor, stands, dedupe = 0, nil, nil, nil, nil, nil, nil
    if options ~= '' then
      local timing, cap = options, nil
      local bar = string.find(options, '|', 1, true)
      if bar then
        door = door or open_door()
        local wrong
        descriptor, cap, dedupe, wrong = door.read(id, string.sub(options, bar + 1))
        if wrong then
          return refuse('ARGUMENT', wrong .. ' of message ' .. id)
        end
        timing = string.sub(options, 1, bar - 1)
      end
      if timing ~= '' then
        local head_sign, head_text, sign, due_text, expires_sign, expires_text = string.match(timing, '^(%-?)(%d+) (%+?)(%d+) ?(%+?)(%d*)$')
        head, due = head_sign == '' and natural(head_text) or duration(head_text), moment(queue, sign, due_text, i - 1)
        expires = expires_text ~= '' and moment(queue, expires_sign, expires_text, 0) or nil
        if not head or not due or (expires_text ~= '' and not expires) then
          return refuse('ARGUMENT', 'head start, due time or expiry of message ' .. id)
        end
        head = head_sign == '' and head or -head
        if due - head > 9007199254740991 then
          return refuse('ARGUMENT', 'message ' .. id .. ' stands back beyond the end of time')
        end
      end
      stands = dedupe and door.stand_in(id, body, dedupe, due)
      if not stands and cap and descriptor and not door.has_room(descriptor, cap, due) then
        stands = ''
      end
      if dedupe and not stands then
        door.own(id, dedupe, due)
        meta = 'dedupe=' .. dedupe.key
      end
    end
    if message_ttl > 0 then
      local last = math.max(due or 0, queue.now) + message_ttl
      expires = math.min(expires or last, last)
    end
    if expires then
      meta = 'expires=' .. int(expires) .. (meta and ' ' .. meta or '')
    end
    if stands then
      unsent[#unsent + 1] = id .. '=' .. stands
    else
      stored = stored + 1
      bodies[#bodies + 1], bodies[#bodies + 2] = id, body
      if descriptor then
        door.need(id, descriptor.line)
      end
      if due and due > queue.now then
        delayed[#delayed + 1], delayed[#delayed + 2] = due, id
        earliest = math.min(earliest or due, due)
        if head ~= 0 then
          meta = 'score=' .. int(due - head) .. (meta and ' ' .. meta or '')
        end
      else
        ready[#ready + 1], ready[#ready + 2] = tick - head, id
      end
      if meta then
        metas[#metas + 1], metas[#metas + 2] = id, meta
      end
    end
  end
end

local before = 0
if max_length > 0 then
  before = natural(redis.call('HGET', STATS, 'dropped') or 0)
end
if not before then
  return refuse('CORRUPT', 'field dropped of ' .. STATS .. ' is not a number')
end
-- Too many wait: the first of them go, a thousand a call, as they do in other brokers.
local over = max_length > 0 and math.min(queue.main + #ready / 2 - max_length, 1000) or 0
if over > 0 then
  door = door or queue.meta > 0 and open_door()
  will_touch(queue, PREFIX .. ':dedupe:')
end
check_kinds(queue)
if #bodies > 0 then
  local next_due = #delayed > 0 and redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  -- The first write: it fails on a field that is not a number, or on a full server, while nothing is changed yet.
  redis.call('HINCRBY', STATS, 'total_messages', stored)
  redis.call('HSET', MESSAGES, unpack(bodies))
  if #metas > 0 then
    redis.call('HSET', META, unpack(metas))
  end
  if #delayed > 0 then
    redis.call('ZADD', DELAYED, unpack(delayed))
  end
  if #ready > 0 then
    redis.call('ZADD', MAIN, unpack(ready))
  end
  local woken = #ready > 0
  if door then
    door.close()
    woken = door.woken
  end
  if woken or (earliest and (not next_due or earliest < tonumber(next_due))) then
    wake_worker()
  end
end
if over > 0 then
  local dropped = redis.call('ZRANGE', MAIN, 0, over - 1)
  if door then
    door.drop(dropped)
  end
  for _, key in ipairs({ MESSAGES, META, LEASES }) do
    redis.call('HDEL', key, unpack(dropped))
  end
  redis.call('ZREM', MAIN, unpack(dropped))
  redis.call('HSET', STATS, 'dropped', int(before + #dropped))
end
if door then
  door.shorten()
end
close_queue(queue)
remember(caller, number, unsent, queue)
return unsent
