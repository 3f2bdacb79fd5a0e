--- delete: a queue goes, with all that is in it, dead letters too.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix    string   {p}: keys of one caller are built from it
--- ARGV[2] caller    string   who calls
--- ARGV[3] number    integer  the caller's number of this call
--- ARGV[4] if_empty  integer  1: only when no message waits or is leased; 0: in any case
--- Returns: {count}: how many messages waited; -1: nothing was deleted
--- @include queue
--- @include ledger

local caller, number, if_empty = ARGV[2], natural(ARGV[3]), ARGV[4]
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
if if_empty ~= '0' and if_empty ~= '1' then
  return refuse('ARGUMENT', 'delete takes 1 or 0')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end

--- to_gates: the gates of a queue that may have some, or dedupe keys.
local function to_gates()
--- @include gates
  return open_gates(queue)
end
local gates = (queue.gated or queue.meta > 0 or queue.group) and to_gates()
local count = int(queue.main + queue.retry)
if if_empty == '1' and queue.main + queue.delayed + queue.retry + queue.processing > 0 then
  count = '-1'
else
  if queue.meta > 0 then
    will_touch(queue, PREFIX .. ':dedupe:')
  end
  first_write(queue)
  if gates then
    gates.unlink()
  end
  redis.call('UNLINK', unpack(KEYS))
end
remember(caller, number, { count }, queue)
return { count }
