--- pause: stop or start claims from a queue. What is leased goes on, what is sent waits. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] paused  integer  1 or 0
--- Returns: 1
--- @include queue

local paused = ARGV[2]
if paused ~= '1' and paused ~= '0' then
  return refuse('ARGUMENT', 'pause takes 1 or 0')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
first_write(queue)
close_queue(queue)
if paused == '1' then
  redis.call('HSET', CONFIG, 'paused', '1')
else
  redis.call('HDEL', CONFIG, 'paused')
  wake_worker()
end
return 1
