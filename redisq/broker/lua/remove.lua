--- remove: delete messages that nobody runs, wherever they wait. Others are left as they are.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4] counter  string   what they count as: cancelled, dropped or purged
--- ARGV[5] states   string   from these alone, e.g. "waiting,delayed,retry"; or "dead"
--- ARGV[6..] id*    string   1000 at most
--- Returns: list of the ids that were removed
--- @include queue
--- @include ledger
--- @include stats
--- @include states
--- @include done
--- @include meta
--- @include dedupe

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
local COUNTERS = { cancelled = true, dropped = true, purged = true }
local counter, states = ARGV[4], zsets_of(ARGV[5] or '')
if not COUNTERS[counter] or not states or #ARGV > 1005 then
  return refuse('ARGUMENT', 'remove takes cancelled, dropped or purged, states, 1000 ids at most')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local stats
stats, refused = read_stats({ counter })
if not stats then
  return refused
end
local ids = {}
for i = 6, #ARGV do
  ids[#ids + 1] = ARGV[i]
end

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates, metas = queue.gated and to_gates(), metas_of(queue, ids)
local needs = gates and gates.of(ids)
will_end_dedupes(queue)
first_write(queue)
local removed = {}
for i, id in ipairs(ids) do
  for _, zset in ipairs(states) do
    if redis.call('ZREM', zset, id) == 1 then
      dedupe_end(id, metas[i], queue.now)
      if gates then
        gates.forget(id, needs[i], zset == MAIN)
      end
      redis.call('HDEL', MESSAGES, id)
      redis.call('HDEL', META, id)
      redis.call('HDEL', LEASES, id)
      removed[#removed + 1] = id
      tell_done(id)
      break
    end
  end
end
if gates then
  queue.main = redis.call('ZCARD', MAIN)
  gates.arrange()
  gates.close()
  if gates.woken then
    wake_worker()
  end
end
add_stats(stats, { [counter] = #removed })
close_queue(queue)
remember(caller, number, removed, queue)
return removed
