--- join: the limits of a queue are those of a group of queues from now on, or its own again. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- ARGV[2] group   string  the prefix of the group's keys; '' for none
--- Returns: 1. Who waits is looked at when its gate opens; see also: kick
--- @include group

local group = ARGV[2]
if not group or string.find(group, '%s') or group == PREFIX or #ARGV > 2 then
  return refuse('ARGUMENT', 'join takes the prefix of a group, or nothing')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
check_group(PREFIX)
check_group(queue.group or PREFIX)
check_group(group ~= '' and group or PREFIX)
first_write(queue)
if queue.set_back then
--- @include clock
  follow_clock(queue)
end
close_queue(queue)
join_group(queue, group)
return 1
