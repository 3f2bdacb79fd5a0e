--- pause_gate: let nothing pass a gate, a class of gates or a lane for a time; or again. What runs goes on. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] gate    string   class, class:instance, or @lane
--- ARGV[3] length  integer  us from now; inf: until somebody resumes it; 0: it is resumed
--- Returns: 1. Who waits at that very gate is looked at by the next claim; see also: kick
--- @include queue
--- @include gates

local gate, length = ARGV[2], ARGV[3] == 'inf' and math.huge or duration(ARGV[3])
if not string.match(gate, '^[^%s|]+$') or not length then
  return refuse('ARGUMENT', 'pause_gate takes a gate, and a length in us, inf or 0')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local gates = open_gates(queue)
first_write(queue)
if queue.set_back or gates.set_back then
--- @include clock
  follow_clock(queue, gates)
end
close_queue(queue)
if length > 0 then
  gates.pause(gate, queue.now + length)
else
  gates.resume(gate)
end
gates.kick_all(gate)
if gates.woken then
  wake_worker()
end
return 1
