--- enqueue: accept n messages, all or none; a message whose id is in the queue already is left as it is.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4..] (id, body, options)*
---   id       string
---   body     bytes    opaque
---   options  string   '' or "head due" or "head due expires": head: head start by priority, us, or "-n" to stand back;
---                     due: '0' now, '+n' n us from now, 'n' at that time, us; expires: dropped if not leased by then, as due
--- Returns: list of the ids that were there already
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
local duplicates, seen = {}, {}
local bodies, ready, delayed, metas = {}, {}, {}, {}
local earliest = nil
for i = 1, count do
  local id = ids[i]
  if present[i] or seen[id] then
    duplicates[#duplicates + 1] = id
  else
    seen[id] = true
    local options, tick = ARGV[3 + 3 * i], first + i - 1
    local head, due, expires, meta = 0, nil, nil, nil
    if options ~= '' then
      local head_sign, head_text, sign, due_text, expires_sign, expires_text = string.match(options, '^(%-?)(%d+) (%+?)(%d+) ?(%+?)(%d*)$')
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
    if message_ttl > 0 then
      local last = math.max(due or 0, queue.now) + message_ttl
      expires = math.min(expires or last, last)
    end
    if expires then
      meta = 'expires=' .. int(expires)
    end
    bodies[#bodies + 1], bodies[#bodies + 2] = id, ARGV[2 + 3 * i]
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

local before = 0
if max_length > 0 then
  before = natural(redis.call('HGET', STATS, 'dropped') or 0)
end
if not before then
  return refuse('CORRUPT', 'field dropped of ' .. STATS .. ' is not a number')
end
if #bodies > 0 then
  local next_due = #delayed > 0 and redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  -- The first write: it fails on a field that is not a number, or on a full server, while nothing is changed yet.
  redis.call('HINCRBY', STATS, 'total_messages', #bodies / 2)
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
  if #ready > 0 or not next_due or earliest < tonumber(next_due) then
    wake_worker()
  end
end
-- Too many wait: the first of them go, a thousand a call, as they do in other brokers.
local over = max_length > 0 and math.min(queue.main + #ready / 2 - max_length, 1000) or 0
if over > 0 then
  local dropped = redis.call('ZRANGE', MAIN, 0, over - 1)
  for _, key in ipairs({ MESSAGES, META, LEASES }) do
    redis.call('HDEL', key, unpack(dropped))
  end
  redis.call('ZREM', MAIN, unpack(dropped))
  redis.call('HSET', STATS, 'dropped', int(before + #dropped))
end
close_queue(queue)
remember(caller, number, duplicates)
return duplicates
