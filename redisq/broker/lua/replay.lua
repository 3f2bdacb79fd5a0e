--- replay: give dead letters another life: back to their place in main, with all attempts anew and no expiry.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4..] id*    string   1000 at most
--- Returns: list of the ids that are waiting now; one that was no dead letter, or has no body, is left as it is
--- @include queue
--- @include ledger
--- @include stats
--- @include meta
--- @include door

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
if #ARGV > 1003 then
  return refuse('ARGUMENT', 'replay takes 1000 ids at most')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local stats
stats, refused = read_stats({ 'replayed' })
if not stats then
  return refused
end
local ids = {}
for i = 4, #ARGV do
  ids[#ids + 1] = ARGV[i]
end

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates = queue.gated and to_gates()
local needs = gates and gates.of(ids)
local replayed, scored, seen, owned, kept = {}, {}, {}, {}, {}
for i, id in ipairs(ids) do
  if not seen[id] and redis.call('ZSCORE', DLQ, id) and redis.call('HEXISTS', MESSAGES, id) == 1 then
    seen[id] = true
    replayed[#replayed + 1] = id
    local meta = read_meta(redis.call('HGET', META, id))
    local score = int(meta.score or take_ticks(queue, 1))
    scored[#scored + 1], scored[#scored + 2] = score, id
    if gates then
      gates.admit(id, score, needs[i])
    end
    -- It stands for its dedupe key again, if nobody else does.
    local owner = meta.dedupe and (owned[meta.dedupe] or dedupe_owner(meta.dedupe, queue.now) or id)
    if owner == id then
      owned[meta.dedupe] = id
      kept[#kept + 1], kept[#kept + 2] = id, 'dedupe=' .. meta.dedupe
    end
  end
end
check_kinds(queue)
if #replayed > 0 then
  redis.call('ZADD', MAIN, unpack(scored))
  redis.call('ZREM', DLQ, unpack(replayed))
  redis.call('HDEL', META, unpack(replayed))
  if #kept > 0 then
    redis.call('HSET', META, unpack(kept))
  end
  for key, id in pairs(owned) do
    dedupe_own(key, id, 0)
  end
  if gates then
    gates.arrange()
  end
  wake_worker()
end
add_stats(stats, { replayed = #replayed })
close_queue(queue)
remember(caller, number, replayed, queue)
return replayed
