--- claim: promote what is due, take back what expired, lease up to n messages in the order of main.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix       string   {p}: keys of one caller are built from it
--- ARGV[2] caller       string   who calls
--- ARGV[3] number       integer  the caller's number of this call
--- ARGV[4] worker       string   the name that the lease is written to
--- ARGV[5] limit        integer  lease at most this many, 0 to 1000
--- ARGV[6] lease        integer  us until the lease ends, if nobody extends it
--- ARGV[7] max_crashes  integer  a message that lost its lease this often is dead; one that ran apart, twice as often
--- ARGV[8] apart        integer  lease at most this many of those with crashes >= ARGV[9]; the others are put aside
--- ARGV[9] suspect      integer  from so many crashes on a message has to run apart
--- ARGV[10] look        integer  look at up to so many messages for those that have room. This and the rest may be absent:
---   then there is room for all
--- ARGV[11..] (room, ahead, tasks)*  pools of the caller: how many messages it can begin there, how many of these only soon,
---   and which tasks run there, each name between two zero bytes. The first pool runs all that no other one names, so
---   its tasks need not be there. A name between a one byte and a zero byte: nothing of this task is taken ahead. In a queue
---   with gates nothing is taken ahead: what it may spend there is for what runs now
--- Returns: {fence, next_due, short, (id, body, meta)*, dead?}: one fence for all; next_due: us until this queue has something
---   to do for the caller, 0 for at once, '' when nothing is known; "due back moved" when the clock was set back, by so many us,
---   and so many times were moved; short: which pools had no room for a message, by their numbers from 0; meta: see
---   include/meta.lua, '' for a plain first delivery; dead: a list (id, body, meta)* of the messages that this call made dead
---   letters, absent when there are none, body '' where it would be too much
--- @include queue
--- @include ledger
--- @include stats
--- @include meta
--- @include lease
--- @include done
--- @include dedupe
--- @include rooms

-- What has to run apart and finds no room is tried again after so many us, each a little later than the one before it.
local TURN, STEP = 500000, 10000

-- Promotions and take-backs of one call, each: keeps the script short, the next call goes on.
local SWEEP = 100

-- Where there are gates: leases, refusals, and messages without gates that get a ticket, of one call at most.
local LEASES_AT_GATES, REFUSALS, TOLD = 100, 50, 200

-- Messages that are looked at together, after the first page, which has as many as are wanted.
local PAGE = 100

-- Bodies that are read together where nobody knows how large they are: in a queue with gates, where some of them stay, and without.
local FEW, MANY = 16, 32

-- Bodies of one call, in bytes, if it is more than one body: a slow link carries them within its time limit.
local BYTES = 4194304

-- Bodies that one call looks past, in bytes, if it is more than one body: the same ones are read again at the next look.
local PASSED = 1048576

local caller, number = ARGV[2], natural(ARGV[3])
local worker, limit, lease, max_crashes = ARGV[4], natural(ARGV[5]), duration(ARGV[6]), natural(ARGV[7])
local apart, suspect, look = natural(ARGV[8]), natural(ARGV[9]), natural(ARGV[10] or 0)
local answered, refused = recall(caller, number)
if refused then
  return refused
end
if not limit or limit > 1000 or not lease or lease == 0 or not max_crashes or max_crashes == 0
    or not string.match(worker, '^%S+$') or not apart or not suspect or suspect == 0 or not look then
  return refuse('ARGUMENT', 'claim takes worker, limit 0 to 1000, lease > 0 us, max_crashes > 0, apart, suspect > 0, look')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
--- @include take
  local gates = open_flows(queue)
  add_take(queue, gates)
  return gates
end
local gates = queue.gated and to_gates()
local take_room, short
take_room, short, refused = open_rooms(11, gates)
if refused then
  return refused
end

--- next_due: us until there is something to do, as text; has_work: a claim would find something.
local function next_due(has_work)
  if has_work then
    return '0'
  end
  local soonest = gates and gates.next_opening() or nil
  for _, key in ipairs({ DELAYED, RETRY, PROCESSING }) do
    local at = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    if at and key == PROCESSING then
      at = math.max(at, queue.grace)
    end
    if at and (not soonest or at < soonest) then
      soonest = at
    end
  end
  return soonest and int(math.max(soonest - queue.now, 0)) or ''
end

-- Bodies of dead letters that one reply brings, in bytes; the first is brought in any case.
local DEAD_BYTES = 256 * 1024
local dead, dead_rows, dead_bytes = {}, {}, 0

--- tell_dead: name a message that this call made a dead letter, for the caller's log.
local function tell_dead(id, meta)
  local body = redis.call('HGET', MESSAGES, id) or ''
  if dead_bytes > 0 and dead_bytes + #body > DEAD_BYTES then
    body = ''
  end
  dead_bytes = dead_bytes + #body
  dead[#dead + 1] = id
  dead_rows[#dead_rows + 1], dead_rows[#dead_rows + 2], dead_rows[#dead_rows + 3] = id, body, meta
end

-- This call was answered before: the same messages again, as far as they are still this call's.
if answered then
  local fence, ids = answered[1], {}
  for i = 2, #answered do
    if answered[i] == ' ' then
      for j = i + 1, #answered do
        local meta = redis.call('ZSCORE', DLQ, answered[j]) and redis.call('HGET', META, answered[j])
        if meta then
          tell_dead(answered[j], meta)
        end
      end
      break
    end
    ids[#ids + 1] = answered[i]
  end
  local reply = { fence, next_due(queue.main > 0 and not queue.paused and (not gates or gates.left())), '' }
  if #ids > 0 then
    local leases, bodies, metas = redis.call('HMGET', LEASES, unpack(ids)), redis.call('HMGET', MESSAGES, unpack(ids)), metas_of(queue, ids)
    for i, id in ipairs(ids) do
      local held, _, taken_back = read_lease(leases[i])
      if held == fence and not taken_back then
        reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = id, bodies[i] or '', metas[i] or ''
      end
    end
  end
  if #dead > 0 then
    reply[#reply + 1] = dead_rows
  end
  return reply
end

local stats
stats, refused = read_stats({ 'crashes', 'dlq_messages', 'expired', 'cancelled', 'parked' })
if not stats then
  return refused
end
local grown = { crashes = 0, dlq_messages = 0, expired = 0, cancelled = 0, parked = 0 }
will_end_dedupes(queue)
first_write(queue)
if queue.set_back or gates and gates.set_back then
--- @include clock
  follow_clock(queue, gates)
end
if queue.lease ~= lease then
  local config = queue.config
  config[#config + 1], config[#config + 2] = 'lease', int(lease)
end

--- promote: what is due goes to its place in main: the one it had, else that of its due time.
local function promote(source)
  local rows = redis.call('ZRANGEBYSCORE', source, '-inf', int(queue.now), 'WITHSCORES', 'LIMIT', 0, SWEEP)
  local ids, scored = {}, {}
  for i = 1, #rows, 2 do
    ids[#ids + 1] = rows[i]
  end
  local metas, raws = metas_of(queue, ids), gates and gates.of(ids)
  for i, id in ipairs(ids) do
    local score = metas[i] and read_meta(metas[i]).score
    score = score and int(score) or rows[2 * i]
    scored[#scored + 1], scored[#scored + 2] = score, id
    if gates then
      gates.admit(id, score, raws[i])
    end
  end
  if #ids > 0 then
    redis.call('ZADD', MAIN, unpack(scored))
    redis.call('ZREM', source, unpack(ids))
    queue.main = queue.main + #ids
  end
end

--- bury: a message that claim itself finds dead.
local function bury(id, meta, reason, text)
  meta.died, meta.reason, meta.text = queue.now, reason, text
  local written = write_meta(meta)
  redis.call('HSET', META, id, written)
  tell_dead(id, written)
  redis.call('ZADD', DLQ, int(queue.now), id)
  grown.dlq_messages = grown.dlq_messages + 1
  queue.meta = queue.meta + 1
  dedupe_end(id, meta.dedupe and 'dedupe=' .. meta.dedupe, queue.now)
  tell_done(id)
end

--- forget: a message that is not wanted any more. Its place in a sorted set, and in a flow, is the caller's to clear.
local function forget(id, raw)
  dedupe_end(id, raw, queue.now)
  redis.call('HDEL', MESSAGES, id)
  redis.call('HDEL', META, id)
  redis.call('HDEL', LEASES, id)
  tell_done(id)
end

--- drop_expired: whether the message expired, and is gone now. With its place in main the caller is done already.
local function drop_expired(id, raw)
  local expires = string.find(raw, 'expires=', 1, true) and read_meta(raw).expires
  if not expires or expires > queue.now then
    return false
  end
  if queue.rules and queue.rules.keep_expired == 1 then
    bury(id, read_meta(raw), 'expired', 'nobody took it in time')
    redis.call('HDEL', LEASES, id)
    return true
  end
  forget(id, raw)
  grown.expired = grown.expired + 1
  return true
end

--- bury_bodiless: somebody deleted the body, or the server evicts keys. Kept, so that an operator sees it.
local function bury_bodiless(id, raw)
  bury(id, read_meta(raw), 'body_missing', 'the message has no body in ' .. MESSAGES)
  redis.call('HDEL', LEASES, id)
end

--- is_suspect: whether a message with that meta has to run apart.
local function is_suspect(raw)
  local crashes = string.find(raw, 'crashes=', 1, true) and read_meta(raw).crashes or 0
  return crashes >= suspect
end

--- put_aside: a message has to run apart and there is no room for it. Nobody leases it, so no death of a worker is charged to
--- it while it waits. Its place in main is the caller's to clear; its meta has it. Who lost its lease may still ack.
local function put_aside(id)
  grown.parked = grown.parked + 1
  redis.call('ZADD', RETRY, int(queue.now + TURN + grown.parked * STEP), id)
  queue.retry = queue.retry + 1
end

--- take_back: leases past their deadline. The record stays, marked, so that a late ack of the last holder still counts.
local function take_back()
  local ids = redis.call('ZRANGEBYSCORE', PROCESSING, '-inf', int(queue.now), 'LIMIT', 0, SWEEP)
  if #ids == 0 then
    return
  end
  local leases, metas, raws = redis.call('HMGET', LEASES, unpack(ids)), metas_of(queue, ids), gates and gates.of(ids)
  for i, id in ipairs(ids) do
    local meta, needs = read_meta(metas[i]), raws and raws[i]
    local fence, score = read_lease(leases[i])
    -- One that ran apart did not kill the worker: that would have said so. It may have hung it, so it has a limit too.
    local most = meta.crashes >= suspect and 2 * max_crashes or max_crashes
    meta.crashes = meta.crashes + 1
    grown.crashes = grown.crashes + 1
    meta.score = tonumber(score) or queue.now
    if needs then
      gates.free(needs)
    end
    if is_cancelled(leases[i]) then
      forget(id, metas[i])
      grown.cancelled = grown.cancelled + 1
      if needs then
        gates.forget(id, needs, false)
      end
    elseif meta.crashes >= most then
      if needs then
        gates.dead(id, needs)
      end
      local times = meta.crashes == 1 and ' time' or ' times'
      bury(id, meta, 'crashed', 'the worker died or lost its lease ' .. int(meta.crashes) .. times)
      redis.call('HDEL', LEASES, id)
    else
      redis.call('HSET', META, id, write_meta(meta))
      queue.meta = queue.meta + 1
      if fence then
        redis.call('HSET', LEASES, id, 'x' .. leases[i])
      end
      redis.call('ZADD', MAIN, int(meta.score), id)
      queue.main = queue.main + 1
      if gates then
        gates.admit(id, int(meta.score), needs)
      end
    end
  end
  redis.call('ZREM', PROCESSING, unpack(ids))
end

if queue.delayed > 0 then
  promote(DELAYED)
end
if queue.retry > 0 then
  promote(RETRY)
end
if queue.processing > 0 and queue.now >= queue.grace then
  take_back()
end

if gates then
  gates.open_due(SWEEP)
  gates.sweep(SWEEP)
  gates.arrange()
end

local fence = int(take_ticks(queue, 1))
local reply, given = { fence, '', '' }, { fence }
-- full: there were more bodies than one call carries.
local full = false
if limit > 0 and queue.main > 0 and not queue.paused then
  local leases, deadlines, deadline = {}, {}, int(queue.now + lease)
  local before, behind = fence .. ' ', ' ' .. worker
  local count, bytes = 0, 0

  --- lease_all: the first `last` messages are the caller's now, but for those in whose place `ids` has false. rows: {(id, place)*}.
  local function lease_all(ids, rows, bodies, metas, last)
    for i = 1, last do
      local id = ids[i]
      if id then
        local pair, triple = 2 * count, 3 + 3 * count
        leases[pair + 1], leases[pair + 2] = id, before .. rows[2 * i] .. behind
        deadlines[pair + 1], deadlines[pair + 2] = deadline, id
        reply[triple + 1], reply[triple + 2], reply[triple + 3] = id, bodies[i], metas[i] or ''
        count = count + 1
        given[count + 1] = id
      end
    end
  end

  if gates then
    gates.tell_old(TOLD)
    -- expected: bodies that were read already, by id. meta: of the message that was looked at last; is_apart: whether it is suspect.
    local expected, meta, is_apart = {}, nil, false
    local bodies, metas, passes, passed = {}, {}, 0, 0
    local rows, gone = gates.take(math.min(limit, LEASES_AT_GATES), REFUSALS, {
      expect = function(ids)
        if #ids > 2 and #ids * redis.call('HSTRLEN', MESSAGES, ids[1]) <= BYTES then
          -- The others may be larger than the first: few at a time, and no more than a call carries.
          local size = 0
          for at = 1, #ids, FEW do
            if size > BYTES then
              return
            end
            for i, body in ipairs(redis.call('HMGET', MESSAGES, unpack(ids, at, math.min(at + FEW - 1, #ids)))) do
              expected[ids[at + i - 1]] = body
              size = size + #(body or '')
            end
          end
        end
      end,
      unwanted = queue.meta > 0 and function(id)
        local raw = redis.call('HGET', META, id)
        if raw and drop_expired(id, raw) then
          return 'gone'
        end
        meta, is_apart = raw, raw and is_suspect(raw)
        if is_apart and apart == 0 then
          put_aside(id)
          return 'aside'
        end
        return nil
      end,
      unfit = function(id)
        local body = expected[id] or redis.call('HGET', MESSAGES, id)
        if not body then
          bury_bodiless(id, meta)
          return 'dead'
        end
        full = full or bytes > 0 and bytes + #body > BYTES
        if full or passed >= PASSED then
          return 'full'
        end
        if take_room and not take_room(body, meta) then
          passed = passed + #body
          return 'later'
        end
        passes, bytes = passes + 1, bytes + #body
        bodies[passes], metas[passes] = body, meta
        if is_apart then
          apart = apart - 1
        end
        return nil
      end,
      crowded = take_room and function(id)
        local body = expected[id] or redis.call('HGET', MESSAGES, id)
        if not body then
          return nil
        end
        if passed >= PASSED then
          return 'full'
        end
        if take_room(body, meta or '', true) then
          return nil
        end
        passed = passed + #body
        return 'later'
      end,
    })
    local ids, gone_count = {}, #gone
    for i = 1, passes do
      ids[i], gone[gone_count + i] = rows[2 * i - 1], rows[2 * i - 1]
    end
    lease_all(ids, rows, bodies, metas, passes)
    if #gone > 0 then
      redis.call('ZREM', MAIN, unpack(gone))
      queue.main = queue.main - #gone
    end
  else
    look = math.max(look, limit)
    -- seen: from the front of main; passed: bytes of the bodies that were looked past.
    local seen, passed, most, looks = 0, 0, limit, look > limit
    -- front: how many from the front leave main, once one of them stays; gone: those behind it that leave.
    local front, gone = nil, {}
    while count < limit and seen < look and passed < PASSED and not full do
      local rows = redis.call('ZRANGE', MAIN, seen, math.min(seen + most, look) - 1, 'WITHSCORES')
      if #rows == 0 then
        break
      end
      local ids = {}
      if looks then
        -- Who looks past many of them is exact: it comes again soon, and would read them again.
        local size = passed
        for i = 1, #rows, 2 do
          size = size + redis.call('HSTRLEN', MESSAGES, rows[i])
          if size > PASSED and i > 1 then
            break
          end
          ids[#ids + 1] = rows[i]
        end
      else
        -- Large bodies are read few at a time, or each call would read all that it has to leave.
        if limit > 1 then
          most = math.max(1, math.min(most, math.floor(BYTES / math.max(redis.call('HSTRLEN', MESSAGES, rows[1]), 1))))
        end
        for i = 1, math.min(#rows / 2, most) do
          ids[i] = rows[2 * i - 1]
        end
      end
      -- read: how many bodies were read. After the first ones it is known better how many one call carries.
      local read = looks and #ids or math.min(#ids, MANY)
      most, looks = PAGE, true
      local bodies, metas = redis.call('HMGET', MESSAGES, unpack(ids, 1, read)), metas_of(queue, ids)
      -- last: of these messages the last one that is looked at; stays: which of them stay in main.
      local last, left, stays = #ids, limit - count, {}
      for i = 1, #ids do
        if left == 0 then
          last = i - 1
          break
        end
        if i > read then
          local fit = math.ceil((BYTES - bytes) * (i - 1) / math.max(bytes + passed, 1))
          read = math.min(#ids, read + math.max(1, math.min(fit, MANY)))
          for more, body in ipairs(redis.call('HMGET', MESSAGES, unpack(ids, i, read))) do
            bodies[i + more - 1] = body
          end
        end
        local body, meta = bodies[i], metas[i]
        if meta and drop_expired(ids[i], meta) then
          ids[i] = false
        elseif not body then
          bury_bodiless(ids[i], meta)
          ids[i] = false
        elseif bytes > 0 and bytes + #body > BYTES then
          full, last = true, i - 1
          break
        elseif meta and apart == 0 and is_suspect(meta) then
          put_aside(ids[i])
          ids[i] = false
        elseif take_room and not take_room(body, meta) then
          ids[i], stays[i], passed, front = false, true, passed + #body, front or seen + i - 1
        else
          bytes, left = bytes + #body, left - 1
          if meta and is_suspect(meta) then
            apart = apart - 1
          end
        end
      end
      for i = front and math.max(front - seen + 1, 1) or last + 1, last do
        if not stays[i] then
          gone[#gone + 1] = rows[2 * i - 1]
        end
      end
      seen = seen + last
      lease_all(ids, rows, bodies, metas, last)
    end
    if #gone > 0 then
      redis.call('ZREM', MAIN, unpack(gone))
    end
    front = front or seen
    if front > 0 then
      redis.call('ZREMRANGEBYRANK', MAIN, 0, front - 1)
    end
    queue.main = queue.main - front - #gone
  end
  if count > 0 then
    redis.call('HSET', LEASES, unpack(leases))
    redis.call('ZADD', PROCESSING, unpack(deadlines))
  end
end
if gates then
  gates.arrange()
  gates.close()
  if gates.group and not queue.paused then
    gates.group.asked(limit, #given - 1)
  end
end

local has_work = queue.main > 0 and not queue.paused and (not gates or gates.left())
for pool in pairs(short or {}) do
  reply[3] = reply[3] .. (reply[3] == '' and '' or ' ') .. int(pool - 1)
end
-- What is left may be for others only. Then the caller does not come back at once.
reply[2] = next_due(has_work and (reply[3] == '' or full or #given - 1 == limit))
-- Work remains; or the caller is full, and does not sleep towards the next due time: an idle one must.
if has_work or (reply[2] ~= '' and #given - 1 == limit) then
  wake_worker()
end
if queue.unsaid then
  reply[2], queue.unsaid = reply[2] .. ' ' .. queue.unsaid, nil
end
add_stats(stats, grown)
close_queue(queue)
if #dead > 0 then
  reply[#reply + 1] = dead_rows
  given[#given + 1] = ' '
  for i = 1, #dead do
    given[#given + 1] = dead[i]
  end
end
remember(caller, number, given, queue)
return reply
