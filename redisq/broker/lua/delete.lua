--- delete: a queue goes, with all that is in it, dead letters too. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix    string   {p}
--- ARGV[2] if_empty  integer  1: only when no message waits or is leased; 0: in any case
--- Returns: how many messages waited; -1: nothing was deleted
--- @include queue

local if_empty = ARGV[2]
if if_empty ~= '0' and if_empty ~= '1' then
  return refuse('ARGUMENT', 'delete takes 1 or 0')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
if if_empty == '1' and queue.main + queue.delayed + queue.retry + queue.processing > 0 then
  return -1
end
redis.call('UNLINK', unpack(KEYS))
return queue.main + queue.retry
