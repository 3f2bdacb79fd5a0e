--- kick: gates are looked at again, by the rules and pauses of now. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string  {p}
--- ARGV[2..] gate*  string  1000 at most
--- Returns: 1
--- @include queue
--- @include limits

if #ARGV > 1001 then
  return refuse('ARGUMENT', 'kick takes 1000 gates at most')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local gates = open_gates(queue)
add_limits(queue, gates)
first_write(queue)
if queue.set_back or gates.set_back then
--- @include clock
  follow_clock(queue, gates)
end
close_queue(queue)
for i = 2, #ARGV do
  local gate = ARGV[i]
  gates.clamp(gate, gates.limit_of(gate, gates.class_of(gate)))
  gates.kick_all(gate)
end
gates.close()
if gates.woken then
  wake_worker()
end
return 1
