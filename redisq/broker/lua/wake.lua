--- wake: leave the hint that there is something to do. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- Returns: 1
--- @include queue

local queue, refused = open_queue()
if not queue then
  return refused
end
first_write(queue)
wake_worker()
return 1
