--- enqueue: accept n messages, all or none; a message whose id is in the queue already is left as it is.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4..] (id, body, options)*
---   id       string
---   body     bytes    opaque
---   options  string   '' or "timing|descriptor|cap|dedupe|definitions", as far as needed
---   timing       "head due" or "head due expires": head: head start by priority, us; due: '0' now, '+n' n us from now,
---                'n' at that time, us; expires: dropped if not leased by then, as due
---   descriptor   what it waits for besides its turn: see include/gates.lua; '' for nothing
---   cap          integer, most messages of its lane that wait or run; '' for no limit
---   dedupe       "mode window key": see include/dedupe.lua; '' for none
---   definitions  "class=limit;"*: limits that are written where none of that class is known
--- Returns: list of what was not stored as a message of its own: "id", it was there already; "id=owner", the message
---   `owner` stands for it. A lane with its cap, or a dedupe key that refuses, refuses the whole call: REDISQ_LANE_FULL,
---   REDISQ_DUPLICATE
--- @include queue
--- @include ledger
--- @include meta
--- @include gates
--- @include dedupe

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
local first = take_ticks(queue, count)
local duplicates, seen = {}, {}
local bodies, ready, delayed, metas = {}, {}, {}, {}
local needs, admitted, definitions, lengths, owners = {}, {}, {}, {}, {}
local gates = queue.gated and open_gates(queue)
local earliest = nil

--- stand_in: what a waiting message takes over from a new one of its kind; false when it does not wait any more.
local function stand_in(owner, body, mode, due)
  local delayed_till = redis.call('ZSCORE', DELAYED, owner)
  if not delayed_till and not redis.call('ZSCORE', MAIN, owner) and not redis.call('ZSCORE', RETRY, owner) then
    return false
  end
  bodies[#bodies + 1], bodies[#bodies + 2] = owner, body
  if mode == 'e' and delayed_till and due and due > queue.now then
    delayed[#delayed + 1], delayed[#delayed + 2] = due, owner
  end
  return true
end

local stored = 0
for i = 1, count do
  local id, body = ids[i], ARGV[2 + 3 * i]
  if present[i] or seen[id] then
    duplicates[#duplicates + 1] = id
  else
    seen[id] = true
    local options, tick = ARGV[3 + 3 * i], first + i - 1
    local head, due, meta, descriptor, stands = 0, nil, nil, nil, nil
    if options ~= '' then
      local timing, raw, cap, dedupe, defined = string.match(options, '^([^|]*)|?([^|]*)|?([^|]*)|?([^|]*)|?([^|]*)$')
      local head_text, sign, due_text, expires_sign, expires_text = string.match(timing or '', '^(%d+) (%+?)(%d+) ?(%+?)(%d*)$')
      head, due = natural(head_text), moment(queue, sign, due_text, i - 1)
      local expires = expires_text ~= '' and moment(queue, expires_sign, expires_text, 0) or nil
      if not head or not due or (expires_text ~= '' and not expires) then
        return refuse('ARGUMENT', 'head start, due time or expiry of message ' .. id)
      end
      if expires then
        meta = 'expires=' .. int(expires)
      end
      if raw ~= '' then
        descriptor = read_descriptor(raw)
        if not descriptor or string.find(id, '^[~!]') then
          return refuse('ARGUMENT', 'descriptor of message ' .. id)
        end
        for class, limit in string.gmatch(defined, '([^=;]+)=([^;]+);') do
          definitions[class] = limit
        end
      end
      if dedupe ~= '' then
        local mode, window, key = string.match(dedupe, '^([ipre]) (%d+) (%S+)$')
        local length = duration(window)
        if not length then
          return refuse('ARGUMENT', 'dedupe of message ' .. id)
        end
        local owner = owners[key] and owners[key].id or dedupe_owner(key)
        if owner and owner ~= id then
          if mode == 'r' then
            return refuse('DUPLICATE', 'message ' .. owner .. ' stands for dedupe key ' .. key)
          end
          -- Of one call, the last body counts: both are written, in order.
          stands = (mode == 'i' or owners[key] or stand_in(owner, body, mode, due)) and owner
          if stands and mode ~= 'i' and owners[key] then
            bodies[#bodies + 1], bodies[#bodies + 2] = owner, body
          end
        end
        if not stands then
          owners[key] = { id = id, till = length > 0 and queue.now + length or 0 }
          meta = (meta and meta .. ' ' or '') .. 'dedupe=' .. key
        end
      end
      if descriptor and not stands and cap ~= '' and descriptor.kind ~= 'F' then
        gates = gates or open_gates(queue)
        local length = (lengths[descriptor.flow] or gates.lane_length(descriptor.flow)) + 1
        if length > (natural(cap) or 0) then
          return refuse('LANE_FULL', 'lane ' .. descriptor.flow .. ' has its ' .. cap .. ' messages')
        end
        lengths[descriptor.flow] = length
      end
    end
    if stands then
      duplicates[#duplicates + 1] = id .. '=' .. stands
    else
      stored = stored + 1
      bodies[#bodies + 1], bodies[#bodies + 2] = id, body
      local raw = descriptor and int(descriptor.head) .. ' ' .. descriptor.kind .. ' ' .. descriptor.flow .. descriptor.rest
      if raw then
        needs[#needs + 1], needs[#needs + 2] = id, raw
      end
      if due and due > queue.now then
        delayed[#delayed + 1], delayed[#delayed + 2] = due, id
        earliest = math.min(earliest or due, due)
        if head > 0 then
          meta = 'score=' .. int(due - head) .. (meta and ' ' .. meta or '')
        end
      else
        ready[#ready + 1], ready[#ready + 2] = tick - head, id
        admitted[#admitted + 1] = raw or false
      end
      if meta then
        metas[#metas + 1], metas[#metas + 2] = id, meta
      end
    end
  end
end

if #bodies > 0 then
  local next_due = #delayed > 0 and redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  if #needs > 0 and not queue.gated then
    gates = gates or open_gates(queue)
  end
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
  for key, owner in pairs(owners) do
    dedupe_own(key, owner.id, owner.till)
  end
  if #needs > 0 then
    for class, limit in pairs(definitions) do
      redis.call('HSETNX', LIMITS, class, limit)
    end
    if not queue.gated then
      local config = queue.config
      config[#config + 1], config[#config + 2] = 'gated', '1'
      if queue.main > 0 then
        config[#config + 1], config[#config + 2] = 'untold', '-inf ' .. int(first - 1)
      end
    end
    gates.need(needs)
  end
  local woken = #ready > 0
  if gates and (queue.gated or #needs > 0) then
    for i, raw in ipairs(admitted) do
      gates.admit(ready[2 * i], ready[2 * i - 1], raw)
    end
    gates.arrange()
    woken = gates.woken
  end
  if woken or (earliest and (not next_due or earliest < tonumber(next_due))) then
    wake_worker()
  end
end
close_queue(queue)
remember(caller, number, duplicates)
return duplicates
