--- delete: a queue goes, with all that is in it, dead letters too. One whose messages have lanes, limits or dedupe keys goes in
--- several calls when it is large: the last one takes what is left, and what came meanwhile.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix    string   {p}: keys of one caller are built from it
--- ARGV[2] caller    string   who calls
--- ARGV[3] number    integer  the caller's number of this call
--- ARGV[4] if_empty  integer  1: only when no message waits or is leased; 0: in any case
--- ARGV[5] most      integer  so many messages that need care go in one call, 1 to 1000; 0: all
--- Returns: {count, left}: how many messages waited before; -1: nothing was deleted; left: how many are still to go
--- @include queue
--- @include ledger
--- @include meta

local caller, number, if_empty, most = ARGV[2], natural(ARGV[3]), ARGV[4], natural(ARGV[5])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
if if_empty ~= '0' and if_empty ~= '1' or not most or most > 1000 then
  return refuse('ARGUMENT', 'delete takes 1 or 0, and 0 to 1000')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end

--- to_gates: the gates of a queue that may have some, or dedupe keys.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates = (queue.gated or queue.meta > 0 or queue.group) and to_gates()
local count, left = int(queue.main + queue.retry), 0
local held = queue.main + queue.delayed + queue.retry + queue.processing
if if_empty == '1' and held > 0 then
  remember(caller, number, { '-1', '0' }, queue)
  return { '-1', '0' }
end

--- shorten: the first messages go, `most` of them.
local function shorten()
  for _, zset in ipairs({ DELAYED, RETRY, MAIN, PROCESSING, DLQ }) do
    local ids = most > 0 and redis.call('ZRANGE', zset, 0, most - 1) or {}
    if #ids > 0 then
      local needs = gates.of(ids)
      for _, raw in pairs(metas_of(queue, ids)) do
        gates.unlink_dedupe(raw)
      end
      for i, id in ipairs(ids) do
        if zset == PROCESSING then
          gates.free(needs[i])
        end
        gates.forget(id, needs[i], zset == MAIN)
      end
      for _, key in ipairs({ MESSAGES, META, LEASES }) do
        redis.call('HDEL', key, unpack(ids))
      end
      redis.call('ZREM', zset, unpack(ids))
      most = most - #ids
    end
  end
  queue.main = redis.call('ZCARD', MAIN)
  gates.arrange()
  gates.close()
  close_queue(queue)
end

will_touch(queue, PREFIX .. ':dedupe:')
first_write(queue)
if gates and most > 0 and held + queue.dead > most and gates.needed + queue.meta > most then
  left = held + queue.dead - most
  shorten()
else
  if gates then
    gates.unlink()
  end
  redis.call('UNLINK', unpack(KEYS))
end
remember(caller, number, { count, int(left) }, queue)
return { count, int(left) }
