--- set_limit: write the rule of a class of gates, or of one gate, or take it away. What that very gate has given out counts
--- by the new rule; for the other gates of a class see kick.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix      string   {p}: keys of one caller are built from it
--- ARGV[2] caller      string   who calls
--- ARGV[3] number      integer  the caller's number of this call
--- ARGV[4] whose       string   operator, or code: an operator's rule goes before the code's, and the code has none for one gate
--- ARGV[5] name        string   class or class:instance
--- ARGV[6] definition  string   "count period burst" or "count"; '' to take it away
--- Returns: {}
--- @include queue
--- @include ledger
--- @include limits

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
local whose, name, definition = ARGV[4], ARGV[5], ARGV[6]
local is_gate = string.find(name, ':', 1, true)
local is_rule = definition == '' or string.match(definition, '^%d+$') or string.match(definition, '^%d+ %d+ %d+$')
if not (whose == 'operator' or whose == 'code' and not is_gate) or not string.match(name, '^[^%s|=;@][^%s|=;]*$') or not is_rule then
  return refuse('ARGUMENT', 'set_limit takes operator or code, a class or gate, and a definition')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local gates = open_gates(queue)
add_limits(queue, gates)
local class = gates.class_of(name)
local old = gates.limit_of(name, class)
first_write(queue)
if queue.set_back or gates.set_back then
--- @include clock
  follow_clock(queue, gates)
end
local tat = gates.tat_of(name)
close_queue(queue)
local field = (whose == 'operator' and '=' or '') .. name
if definition ~= '' then
  redis.call('HSET', gates.limits, field, definition)
  if is_gate then
    redis.call('HSET', gates.limits, '=*', '1') -- gates have rules of their own: they are asked for
  end
else
  redis.call('HDEL', gates.limits, field)
  local some = false
  for _, left in ipairs(redis.call('HKEYS', gates.limits)) do
    some = some or string.find(left, ':', 1, true)
  end
  if not some then
    redis.call('HDEL', gates.limits, '=*')
  end
end
gates.forget_limits()
gates.convert(name, old, gates.limit_of(name, class), tat)
gates.close()
gates.kick_all(name)
if gates.woken then
  wake_worker()
end
remember(caller, number, {}, queue)
return {}
