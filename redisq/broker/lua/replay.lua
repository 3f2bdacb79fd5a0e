--- replay: give dead letters another life: back to their place in main, with all attempts anew and no expiry.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix   string   {p}: keys of one caller are built from it
--- ARGV[2] caller   string   who calls
--- ARGV[3] number   integer  the caller's number of this call
--- ARGV[4] mode     string   alone: one whose dedupe key another message has stays dead; beside: it waits without the key
--- ARGV[5..] id*    string   1000 at most
--- Returns: list of the ids that are waiting now, and of "id=owner" for one that stays dead, since the message `owner` has its
---   dedupe key; one that was no dead letter, or has no body, is left as it is
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
local mode = ARGV[4]
if #ARGV > 1004 or (mode ~= 'alone' and mode ~= 'beside') then
  return refuse('ARGUMENT', 'replay takes alone or beside, and 1000 ids at most')
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
for i = 5, #ARGV do
  ids[#ids + 1] = ARGV[i]
end

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates = queue.gated and to_gates()
local needs = gates and gates.of(ids)
local replayed, scored, seen, owned, kept, held = {}, {}, {}, {}, {}, {}
for i, id in ipairs(ids) do
  if not seen[id] and redis.call('ZSCORE', DLQ, id) and redis.call('HEXISTS', MESSAGES, id) == 1 then
    seen[id] = true
    local meta = read_meta(redis.call('HGET', META, id))
    -- It stands for its dedupe key again, if nobody else does.
    local owner = meta.dedupe and (owned[meta.dedupe] or dedupe_owner(meta.dedupe, queue.now) or id)
    if owner and owner ~= id and mode == 'alone' then
      held[#held + 1] = id .. '=' .. owner
    else
      replayed[#replayed + 1] = id
      local score = int(meta.score or take_ticks(queue, 1))
      scored[#scored + 1], scored[#scored + 2] = score, id
      if gates then
        gates.admit(id, score, needs[i])
      end
      if owner == id then
        owned[meta.dedupe] = id
        kept[#kept + 1], kept[#kept + 2] = id, 'dedupe=' .. meta.dedupe
      end
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
local reply = replayed
for _, one in ipairs(held) do
  reply[#reply + 1] = one
end
remember(caller, number, reply, queue)
return reply
