--- settle: end n deliveries. One whose fence is not the id's last changes nothing and is named in the reply.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix    string   {p}: keys of one caller are built from it
--- ARGV[2] caller    string   who calls
--- ARGV[3] number    integer  the caller's number of this call
--- ARGV[4] run_time  integer  us that the handlers of this call ran, for the stats
--- ARGV[5] acks      integer  so many pairs (id, fence) follow: done, the message goes
--- ARGV[6..] (id, fence)*acks, then (op, id, fence, delay, reason, text)*
---   op      string   retry: a failed attempt, again after delay; park: put aside for delay, no attempt spent, and its rates
---                    get back what it took;
---                    limited: as park; text is "gate jitter text": that gate is paused for delay, the message waits jitter
---                    us longer; gate may be '', and need not be the message's;
---                    crash: it took its process with it, again after delay;
---                    release: back to its place at once, free; with reason not_begun its rates get back what it took; dead: a dead letter; result: as ack, and text is kept for delay;
---                    cancel: it goes, unfinished, as somebody wanted
---   delay   integer  us
---   reason  string   one word, e.g. failed, exhausted, unknown_task
---   text    bytes    free text, e.g. the error; the encoded result
--- Of a message that was cancelled since it was leased, retry, park, limited, crash and release are as cancel.
--- Returns: list of the ids that were refused as stale
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
local run_time, acks = natural(ARGV[4]), natural(ARGV[5])
local others = acks and (#ARGV - 5 - 2 * acks) / 6
if not run_time or not acks or others < 0 or others ~= math.floor(others) or acks + others > 1000 then
  return refuse('ARGUMENT', 'settle takes run_time, acks, (id, fence)*acks, (op, id, fence, delay, reason, text)*, 1000 at most')
end
local ids, fences, ops, pauses, results = {}, {}, {}, false, false
for i = 1, acks do
  ids[i], fences[i] = ARGV[4 + 2 * i], ARGV[5 + 2 * i]
end
local OPS = { retry = true, park = true, limited = true, crash = true, release = true, dead = true, result = true, cancel = true }
for i = 1, others do
  local at = 6 + 2 * acks + 6 * (i - 1)
  local op = { name = ARGV[at], delay = duration(ARGV[at + 3]), reason = ARGV[at + 4], text = ARGV[at + 5] }
  if not OPS[op.name] or not op.delay or not string.match(op.reason, '^%l[%l_]*$') then
    return refuse('ARGUMENT', 'op, delay or reason of message ' .. tostring(ARGV[at + 1]))
  end
  if op.name == 'limited' then
    local gate, jitter, text = string.match(op.text, '^(%S*) (%d+) (.*)$')
    op.gate, op.jitter, op.text = gate, duration(jitter), text
    if not op.jitter then
      return refuse('ARGUMENT', 'gate or jitter of message ' .. tostring(ARGV[at + 1]))
    end
    pauses = pauses or gate ~= ''
  end
  results = results or op.name == 'result'
  ids[acks + i], fences[acks + i], ops[acks + i] = ARGV[at + 1], ARGV[at + 2], op
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
local stats
stats, refused = read_stats({ 'processed_requests', 'retry_count', 'dlq_messages', 'released', 'parked', 'limited', 'crashes', 'cancelled', 'stale', 'late_acks', 'run_time_us' })
if not stats then
  return refused
end
if #ids == 0 then
  return {}
end

local leases, metas = redis.call('HMGET', LEASES, unpack(ids)), metas_of(queue, ids)

--- to_gates: the gates of a queue that has some, or gets a pause; and what adds the rules of rates to them.
local function to_gates()
--- @include flows
--- @include limits
  return open_flows(queue), add_limits
end
local gates, add_rules = nil, nil
if queue.gated or pauses then
  gates, add_rules = to_gates()
end
local needs = gates and gates.of(ids)
will_end_dedupes(queue)
if results then
  will_touch(queue, PREFIX .. ':result:')
end
first_write(queue)
if queue.set_back or gates and gates.set_back then
--- @include clock
  follow_clock(queue, gates)
end
local grown = { processed_requests = 0, retry_count = 0, dlq_messages = 0, released = 0, parked = 0, limited = 0, crashes = 0, cancelled = 0, stale = 0, late_acks = 0, run_time_us = run_time }
-- done: leases that end with their message; kept: those that end without it; waiting_again: done, but taken back before.
local stale, done, kept, waiting_again = {}, {}, {}, {}
local ended, wake = {}, false

--- wait_again: to retry, due after the delay, with its place in main kept.
local function wait_again(id, meta, op)
  meta.reason, meta.text = op.reason, op.text
  redis.call('HSET', META, id, write_meta(meta))
  local due = queue.now + op.delay
  local first = tonumber(redis.call('ZRANGE', RETRY, 0, 0, 'WITHSCORES')[2])
  redis.call('ZADD', RETRY, int(due), id)
  wake = wake or not first or due < first
end

local APPLY = {
  retry = function(id, meta, op)
    meta.attempt = meta.attempt + 1
    wait_again(id, meta, op)
    grown.retry_count = grown.retry_count + 1
  end,
  park = function(id, meta, op)
    if op.jitter then -- it is limited
      if op.gate ~= '' then
        gates.pause_longer(op.gate, queue.now + op.delay)
      else
        meta.parks = meta.parks + 1 -- nothing but the message itself waits: whoever settles can bound that
      end
      op.delay = op.delay + op.jitter
      grown.limited = grown.limited + 1
    else
      meta.parks = meta.parks + 1
      grown.parked = grown.parked + 1
    end
    wait_again(id, meta, op)
  end,
  crash = function(id, meta, op)
    meta.crashes = meta.crashes + 1
    wait_again(id, meta, op)
    grown.crashes = grown.crashes + 1
  end,
  release = function(id, meta, _, need)
    redis.call('ZADD', MAIN, int(meta.score), id)
    if queue.gated then
      gates.admit(id, int(meta.score), need)
    end
    grown.released = grown.released + 1
    wake = true
  end,
  dead = function(id, meta, op, need)
    if need then
      gates.dead(id, need)
    end
    dedupe_end(id, meta.dedupe and 'dedupe=' .. meta.dedupe, queue.now)
    if op.reason == 'crashed' then -- its last crash, of which no lease tells
      meta.crashes = meta.crashes + 1
      grown.crashes = grown.crashes + 1
    end
    meta.died, meta.reason, meta.text = queue.now, op.reason, op.text
    redis.call('HSET', META, id, write_meta(meta))
    redis.call('ZADD', DLQ, int(queue.now), id)
    grown.dlq_messages = grown.dlq_messages + 1
    tell_done(id)
  end,
}

APPLY.limited = APPLY.park

-- What a lease's record begins with; the fences of a batch are few, and mostly one.
local fence, begins, length
-- To count a list costs more than to keep its length.
local done_count, plain_count = 0, 0
for i = 1, #ids do
  local id, op, raw = ids[i], ops[i], leases[i]
  if fences[i] ~= fence then
    fence = fences[i]
    -- Digits alone: "x7" must not pass for the holder of what was taken back. No record begins with a line break.
    begins = string.find(fence, '^%d+$') and fence .. ' ' or '\n'
    length = #begins
  end
  local held = raw and string.sub(raw, 1, length) == begins
  local taken_back = raw and not held and string.sub(raw, 1, length + 1) == 'x' .. begins
  local is_done = not op or op.name == 'result' or op.name == 'cancel'
  if held and not op and not gates and not metas[i] and not ended[id] then
    -- Done, and nothing else is to be cleared: so end most.
    ended[id] = true
    done_count, plain_count = done_count + 1, plain_count + 1
    done[done_count] = id
  elseif ended[id] or not (held or (taken_back and is_done)) then
    stale[#stale + 1] = id
    grown.stale = grown.stale + 1
  else
    ended[id] = true
    local need = needs and needs[i]
    if need and held then
      gates.free(need)
      if op and (op.name == 'park' or op.reason == 'not_begun') then
        if not gates.give_back then
          add_rules(queue, gates)
        end
        gates.give_back(need, tonumber(fence))
      end
    end
    if not is_done and op.name ~= 'dead' and is_cancelled(raw) then
      op, is_done = { name = 'cancel' }, true -- it must not run again
    end
    if not is_done then
      kept[#kept + 1] = id
      local _, score = read_lease(raw)
      local meta = read_meta(metas[i])
      meta.score = tonumber(score) or queue.now
      APPLY[op.name](id, meta, op, need)
    else
      done_count = done_count + 1
      done[done_count] = id
      if queue.gated then
        gates.forget(id, need, not held)
      end
      if metas[i] then
        dedupe_end(id, metas[i], queue.now)
      end
      if op and op.name == 'result' then
        redis.call('SET', PREFIX .. ':result:' .. id, op.text, 'PX', math.max(math.floor(op.delay / 1000), 1))
      end
      if op then
        tell_done(id)
      end
      local counter = op and op.name == 'cancel' and 'cancelled' or 'processed_requests'
      grown[counter] = grown[counter] + 1
      if taken_back then
        waiting_again[#waiting_again + 1] = id
        grown.late_acks = grown.late_acks + 1
      end
    end
  end
end
grown.processed_requests = grown.processed_requests + plain_count
if #kept > 0 then
  redis.call('ZREM', PROCESSING, unpack(kept))
  redis.call('HDEL', LEASES, unpack(kept))
end
if #waiting_again > 0 then
  redis.call('ZREM', MAIN, unpack(waiting_again))
  redis.call('ZREM', RETRY, unpack(waiting_again)) -- put aside since, to run apart
end
if done_count > 0 then
  redis.call('ZREM', PROCESSING, unpack(done))
  redis.call('HDEL', LEASES, unpack(done))
  redis.call('HDEL', MESSAGES, unpack(done))
  if queue.meta > 0 then
    redis.call('HDEL', META, unpack(done))
  end
end
if gates then
  gates.arrange()
  gates.close()
  wake = wake or gates.woken
end
if wake then
  wake_worker()
end
add_stats(stats, grown)
close_queue(queue)
remember(caller, number, stale, queue)
return stale
