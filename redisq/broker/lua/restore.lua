--- restore: give back n leases whose messages were not settled: to their place in main, at once. One whose fence is not the
--- id's last is passed over. The record stays, marked, so that a late ack of the last holder still counts. One that was
--- cancelled since it was leased goes.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}: keys of one caller are built from it
--- ARGV[2] caller  string   who calls
--- ARGV[3] number  integer  the caller's number of this call
--- ARGV[4] limit   integer  it counts as a requeue, and a message with so many may be dead; 0: it is free
--- ARGV[5] age     integer  us since its first requeue before it may be dead
--- ARGV[6..] (id, fence)*   1000 at most
--- Returns: list of the ids that were refused as stale; if some are dead letters now, a blank and their ids follow
--- @include queue
--- @include ledger
--- @include stats
--- @include meta
--- @include lease
--- @include done
--- @include dedupe

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
local limit, age, count = natural(ARGV[4]), duration(ARGV[5]), (#ARGV - 5) / 2
if not limit or not age or count < 0 or count ~= math.floor(count) or count > 1000 then
  return refuse('ARGUMENT', 'restore takes limit, age, (id, fence)*, 1000 at most')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local stats
stats, refused = read_stats({ 'released', 'requeued', 'dlq_messages', 'cancelled', 'stale' })
if not stats then
  return refused
end
if count == 0 then
  return {}
end
local ids = {}
for i = 1, count do
  ids[i] = ARGV[4 + 2 * i]
end
local leases, metas = redis.call('HMGET', LEASES, unpack(ids)), metas_of(queue, ids)

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates = queue.gated and to_gates()
local needs = gates and gates.of(ids)
will_end_dedupes(queue)
first_write(queue)
local dead = {}
local grown, stale, seen = { released = 0, requeued = 0, dlq_messages = 0, cancelled = 0, stale = 0 }, {}, {}
for i, id in ipairs(ids) do
  local fence, score, taken_back = read_lease(leases[i])
  if seen[id] or fence ~= ARGV[5 + 2 * i] or taken_back then
    stale[#stale + 1] = id
    grown.stale = grown.stale + 1
  else
    seen[id] = true
    local meta, cancelled = read_meta(metas[i]), is_cancelled(leases[i])
    meta.score = tonumber(score) or queue.now
    if cancelled then
      grown.cancelled = grown.cancelled + 1
    elseif limit == 0 then
      meta.parks = meta.parks + 1
      grown.released = grown.released + 1
    else
      meta.requeues = meta.requeues + 1
      meta.since = meta.since or queue.now
      grown.requeued = grown.requeued + 1
    end
    local need = needs and needs[i]
    if need then
      gates.free(need)
    end
    if cancelled then
      dedupe_end(id, metas[i], queue.now)
      if gates then
        gates.forget(id, need, false)
      end
      for _, key in ipairs({ MESSAGES, META, LEASES }) do
        redis.call('HDEL', key, id)
      end
      tell_done(id)
    elseif limit > 0 and meta.requeues >= limit and queue.now - meta.since >= age then
      meta.died, meta.reason, meta.text = queue.now, 'delivery_limit', 'it was requeued ' .. int(meta.requeues) .. ' times'
      redis.call('HSET', META, id, write_meta(meta))
      redis.call('ZADD', DLQ, int(queue.now), id)
      dedupe_end(id, metas[i], queue.now)
      if need then
        gates.dead(id, need)
      end
      redis.call('HDEL', LEASES, id)
      grown.dlq_messages = grown.dlq_messages + 1
      dead[#dead + 1] = id
      tell_done(id)
    else
      redis.call('HSET', META, id, write_meta(meta))
      redis.call('HSET', LEASES, id, 'x' .. leases[i])
      redis.call('ZADD', MAIN, int(meta.score), id)
      queue.main = queue.main + 1
      if gates then
        gates.admit(id, int(meta.score), need)
      end
      wake_worker()
    end
    redis.call('ZREM', PROCESSING, id)
  end
end
if gates then
  gates.arrange()
  gates.close()
  if gates.woken then
    wake_worker()
  end
end
add_stats(stats, grown)
close_queue(queue)
if #dead > 0 then
  stale[#stale + 1] = ' '
  for i = 1, #dead do
    stale[#stale + 1] = dead[i]
  end
end
remember(caller, number, stale, queue)
return stale
