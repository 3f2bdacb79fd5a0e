--- declare: make a queue, and set the rules for all that comes into it. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix        string   {p}
--- ARGV[2] ttl           integer  ms after which a queue that nobody uses goes, with all in it; 0: never
--- ARGV[3] message_ttl   integer  us that a message may wait once it is due; 0: any time
--- ARGV[4] max_length    integer  the first in the queue go when more than this wait; 0: any number
--- ARGV[5] keep_expired  integer  1: what expires becomes a dead letter; 0: it goes
--- ARGV[6] if_new        integer  1: nothing changes in a queue that is there; 0: the rules are these from now on
--- Returns: how many messages wait
--- They stand in config as "ttl=... message_ttl=... max_length=... keep_expired=..."; a queue without rules has no such field.
--- @include queue

local ttl, message_ttl, max_length, keep = natural(ARGV[2]), duration(ARGV[3]), natural(ARGV[4]), ARGV[5]
if not ttl or ttl > 4503599627370 or not message_ttl or not max_length or (keep ~= '0' and keep ~= '1') or (ARGV[6] ~= '0' and ARGV[6] ~= '1') then
  return refuse('ARGUMENT', 'declare takes ttl ms, message_ttl us, max_length, keep_expired and if_new 0 or 1')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
-- One that is new has its layout to be written.
if ARGV[6] == '1' and queue.config[1] ~= 'layout' then
  return queue.main + queue.retry
end
local wanted = 'ttl=' .. int(ttl) .. ' message_ttl=' .. int(message_ttl) .. ' max_length=' .. int(max_length) .. ' keep_expired=' .. keep
first_write(queue)
if ttl == 0 and message_ttl == 0 and max_length == 0 and keep == '0' then
  redis.call('HDEL', CONFIG, 'rules')
else
  queue.config[#queue.config + 1], queue.config[#queue.config + 2] = 'rules', wanted
end
if ttl == 0 and queue.rules and queue.rules.ttl > 0 then
  for _, key in ipairs(KEYS) do
    redis.call('PERSIST', key)
  end
end
queue.rules = { ttl = ttl }
close_queue(queue)
return queue.main + queue.retry
