--- inspect: the lengths, the next event and the counters of a queue. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- Returns: {now, waiting, delayed, retry, processing, dead, oldest, paused, (counter, value)*}; now: us; oldest: score of
---   the first in main, '' when it is empty; paused: '1' or '0'
--- @include queue

local queue, refused = open_queue()
if not queue then
  return refused
end
local reply = {
  int(queue.now), int(queue.main), int(queue.delayed), int(queue.retry), int(queue.processing),
  int(redis.call('ZCARD', DLQ)), redis.call('ZRANGE', MAIN, 0, 0, 'WITHSCORES')[2] or '', queue.paused and '1' or '0',
}
for _, value in ipairs(redis.call('HGETALL', STATS)) do
  reply[#reply + 1] = value
end
return reply
