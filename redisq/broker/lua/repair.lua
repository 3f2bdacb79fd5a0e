--- repair: look at one page of a queue's keys, and put back what was lost with a key that was deleted or evicted. Each id is
--- judged in this one script, so a message that is being claimed or settled is never taken for a lost one. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] act     integer  1: repair; 0: only count, and write nothing
--- ARGV[3] lease   integer  us that a lease without deadline lasts from now on, unless its holder extends it
--- ARGV[4] group   string   the prefix of its group's keys, for a queue whose config was lost; '' for none
--- ARGV[5] what    string   the page, in this order, slots last: flows (by name; cursor: the rank in each), run, blocked, lanes (flows that these name), leases
---                        (holders of lanes), retry, dead (these too, and messages without a body), main, delayed (messages without a body), messages (bodies),
---                        slots (no page: all of them)
--- ARGV[6] cursor  integer  0, or where the page before ended
--- ARGV[7..] flow* string   names of flows, 100 at most
--- Returns: {cursor, (word, count)*}; cursor: '0' when this was the last page; the words, each with how many were found:
---   config: the queue had lost it; waiting, processing, dead: bodies in no state, by the state where they belong;
---   needs: messages whose lane and limits are not known any more; tickets: waiting messages that no claim would try;
---   lanes: lanes that a message holds which does not exist, or that nobody holds though one of its messages was started;
---   gates: limits that nobody would look at again; slots: limits whose count of running messages is wrong;
---   bodiless: messages without a body: each becomes a dead letter, and a dead letter says that it has none;
---   in_turn: such messages in lanes that stop for a dead letter: a claim makes each one when the lane comes to it
--- A message without a body that is leased is left alone: its worker has the body, and may still finish it.
--- @include queue
--- @include meta
--- @include lease
--- @include descriptor
--- @include head
--- @include stats
--- @include done
--- @include dedupe

-- Keys, fields or members of one page; messages of each flow on one page; leases that are counted in one call.
local PAGE, MEMBERS, LEASED = 100, 100, 10000

-- The pages of a queue, and whether one without gates has them too.
local WHAT = {
  flows = 'gates', run = 'gates', blocked = 'gates', lanes = 'gates', leases = 'gates', retry = 'all', dead = 'all', main = 'all', delayed = 'all',
  messages = 'all', slots = 'gates',
}
local act, lease, group, what, cursor = ARGV[2], duration(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
if act ~= '0' and act ~= '1' or not lease or lease == 0 or not group or string.find(group, '%s') or not WHAT[what]
    or not string.match(cursor or '', '^%d+$') or #ARGV > 106 then
  return refuse('ARGUMENT', 'repair takes act 0 or 1, lease > 0 us, group, what and cursor')
end
local queue, refused = open_queue(true)
if not queue then
  return refused
end
local is_lost = queue.config[1] == 'layout'
local content = queue.bodies + queue.main + queue.delayed + queue.retry + queue.processing + queue.dead
if is_lost and (content == 0 or queue.clock == 0 and queue.bodies == 0) then
  -- Nothing is there, or nothing of redisq, which has a clock in each queue that was ever used.
  queue, refused = open_queue()
  return queue and { '0' } or refused
end
act = act == '1'
local found, order = {}, {}

--- note: so many more were found.
local function note(word, count)
  if not found[word] then
    found[word], order[#order + 1] = 0, word
  end
  found[word] = found[word] + count
end

--- set_config: a field of config is this from now on.
local function set_config(field, value)
  queue.config[#queue.config + 1], queue.config[#queue.config + 2] = field, value
end

-- close_queue writes the layout of a queue that has none: on the last page, so that nobody claims or enqueues before.
if is_lost then
  note('config', 1)
  if group ~= '' then
    queue.group = group
    set_config('group', group)
  end
end
local names = {}
for i, name in ipairs({ 'run', 'needs', 'lanes', 'blocked', 'gates', 'slots' }) do
  names[i] = PREFIX .. ':' .. name
end
if not queue.gated and (redis.call('EXISTS', unpack(names)) > 0 or what == 'flows' and #ARGV > 6) then
  -- What waits may have its ticket, or not: it is told again. Without config the page of messages does that, before a claim.
  local last = not is_lost and redis.call('ZRANGE', MAIN, -1, -1, 'WITHSCORES')[2]
  queue.gated = last and '-inf ' .. last or '1'
  set_config('gated', queue.gated)
end

--- to_gates: the gates of a queue that has some.
local function to_gates()
--- @include flows
  return open_flows(queue)
end
local gates = queue.gated and to_gates()

-- Writes of this call, after all that is read and checked: name, key, and two arguments.
local writes = {}
local WRITE = {
  ZADD = function(key, score, member)
    redis.call('ZADD', key, score, member)
  end,
  ZREM = function(key, member)
    redis.call('ZREM', key, member)
  end,
  HSET = function(key, field, value)
    redis.call('HSET', key, field, value)
  end,
  HDEL = function(key, field)
    redis.call('HDEL', key, field)
  end,
}

-- Messages that this call makes dead letters, after `writes`: {id, key, raw meta, raw descriptor}.
local buried = {}

--- later: a write that is carried out if this call repairs.
local function later(name, key, ...)
  -- A key of another type ends the script here, before its first write.
  if string.sub(name, 1, 1) == 'Z' then
    redis.call('ZCARD', key)
  else
    redis.call('HLEN', key)
  end
  writes[#writes + 1] = { name, key, ... }
end

--- reachable: whether a claim will come to the first message of a flow: by a ticket, or by the gate where it waits.
local function reachable(flow)
  if redis.call('ZSCORE', gates.run, '~' .. flow) then
    return true
  end
  local gate = redis.call('HGET', gates.blocked, flow)
  return gate and redis.call('ZSCORE', gates.waiting .. gate, flow) and true or false
end

--- tell: the flow gets a ticket, with the score of its first message or of its holder, and waits at no gate.
local function tell(flow, score, raw)
  later('HDEL', gates.blocked, flow)
  later('ZREM', gates.waiting .. flow, flow)
  local needs = needs_of(gates.parsed(raw))
  for i = 2, #needs, 3 do
    later('ZREM', gates.waiting .. needs[i], flow)
  end
  later('ZADD', gates.run, score, '~' .. flow)
end

--- described: the line of a message in that flow, of which only the flow's name is left. The rule of a class says what kind
--- of limit it is; a message in a lane has lost its limits.
local function described(flow)
  if string.sub(flow, 1, 1) == '@' then
    return '0 C ' .. flow
  end
  local line = '0 F ' .. flow
  for gate in string.gmatch(string.sub(flow, 1, 1) == '#' and '' or flow, '[^+]+') do
    local class = string.match(gate, '^[^:]+')
    local rules = class and redis.call('HMGET', gates.limits, '=' .. class, class) or {}
    local rule = rules[1] or rules[2] or ''
    line = line .. (string.match(rule, '^%d+$') and ' S' .. gate .. ',1' or ' R' .. gate .. (rule ~= '' and ',1' or ',0'))
  end
  return line
end

--- look_at_flow: its messages whose lane and limits are not known any more, a page of them from that rank on. Whether there
--- may be more.
local function look_at_flow(flow, rank)
  local ids = redis.call('ZRANGE', gates.flow .. flow, rank, rank + MEMBERS - 1)
  local is_full = #ids == MEMBERS
  local holder = redis.call('HGET', gates.lanes, flow)
  if holder then
    ids[#ids + 1] = holder
  end
  local line = nil
  local raws = #ids > 0 and redis.call('HMGET', gates.needs, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    if not raws[i] and (redis.call('HEXISTS', MESSAGES, id) == 1 or redis.call('ZSCORE', MAIN, id) or redis.call('ZSCORE', RETRY, id)) then
      line = line or described(flow)
      note('needs', 1)
      later('HSET', gates.needs, id, line)
    end
  end
  return is_full
end

--- members: those of a page of a sorted set, each with its score. cursor is where the next page begins.
local function members(key)
  local page = redis.call('ZSCAN', key, cursor, 'COUNT', PAGE)
  cursor = page[1]
  return page[2]
end

--- fields: those of a page of a hash, each with its value. cursor is where the next page begins.
local function fields(key)
  local page = redis.call('HSCAN', key, cursor, 'COUNT', PAGE)
  cursor = page[1]
  return page[2]
end

local LOOK = {}

function LOOK.flows()
  local rank, goes_on = tonumber(cursor), false
  for i = 7, #ARGV do
    goes_on = look_at_flow(ARGV[i], rank) or goes_on
  end
  cursor = goes_on and int(rank + MEMBERS) or '0'
end

function LOOK.run()
  local rows = members(gates.run)
  for i = 1, #rows, 2 do
    if string.sub(rows[i], 1, 1) == '~' then
      look_at_flow(string.sub(rows[i], 2), 0)
    end
  end
end

function LOOK.blocked()
  local rows, kicked = fields(gates.blocked), {}
  for i = 1, #rows, 2 do
    local flow, gate = rows[i], rows[i + 1]
    look_at_flow(flow, 0)
    if not kicked[gate] then
      kicked[gate] = true
      local first = redis.call('ZRANGE', gates.waiting .. gate, 0, 0, 'WITHSCORES')
      local opens = redis.call('ZSCORE', gates.run, '!' .. gate) or redis.call('ZSCORE', gates.opens, gate)
      if first[1] and not opens and not redis.call('HGET', gates.slots, gate) then
        note('gates', 1)
        later('ZADD', gates.run, first[2], '!' .. gate)
      end
    end
  end
end

function LOOK.lanes()
  local rows = fields(gates.lanes)
  for i = 1, #rows, 2 do
    local flow, id = rows[i], rows[i + 1]
    look_at_flow(flow, 0)
    local raw = redis.call('HGET', gates.needs, id)
    local is_over
    if redis.call('ZSCORE', DLQ, id) then
      is_over = not raw or gates.parsed(raw).kind ~= 'H'
    else
      -- One with a body that is in no state is put back as a message.
      is_over = redis.call('HEXISTS', MESSAGES, id) == 0 and not redis.call('ZSCORE', MAIN, id)
        and not redis.call('ZSCORE', PROCESSING, id) and not redis.call('ZSCORE', RETRY, id)
    end
    if is_over then
      note('lanes', 1)
      later('HDEL', gates.lanes, flow)
      local first = redis.call('ZRANGE', gates.flow .. flow, 0, 0, 'WITHSCORES')
      if first[1] and not reachable(flow) then
        later('ZADD', gates.run, first[2], '~' .. flow)
      end
    end
  end
end

--- look_at_holders: messages of that state that were started and have not ended hold their lanes. Of those without a body, one
--- that runs does, and one that holds its lane as a dead letter.
local function look_at_holders(key, rows, is_holder)
  local ids = {}
  for i = 1, #rows, 2 do
    ids[#ids + 1] = rows[i]
  end
  local raws, held = #ids > 0 and redis.call('HMGET', gates.needs, unpack(ids)) or {}, {}
  for i, id in ipairs(ids) do
    local descriptor = raws[i] and gates.parsed(raws[i])
    local flow = descriptor and is_holder(descriptor) and descriptor.flow
    if flow and not held[flow] and not redis.call('HGET', gates.lanes, flow) and (redis.call('HEXISTS', MESSAGES, id) == 1
        or (key == PROCESSING or descriptor.kind == 'H') and redis.call('ZSCORE', key, id)) then
      note('lanes', 1)
      held[flow] = true
      later('HSET', gates.lanes, flow, id)
      later('ZREM', gates.flow .. flow, id)
      if redis.call('ZSCORE', MAIN, id) then
        tell(flow, redis.call('ZSCORE', MAIN, id), raws[i])
      else
        later('ZREM', gates.run, '~' .. flow)
        local gate = redis.call('HGET', gates.blocked, flow)
        if gate then
          later('HDEL', gates.blocked, flow)
          later('ZREM', gates.waiting .. gate, flow)
        end
      end
    end
  end
end

local function has_lane(descriptor)
  return descriptor.kind ~= 'F'
end

function LOOK.leases()
  look_at_holders(PROCESSING, fields(LEASES), has_lane)
end

--- is_untold: whether a message at that place came before the queue's first gate, and a claim gives it its ticket.
local function is_untold(score)
  local from, till = string.match(gates.untold or '', '^%(?(%S+) (%S+)$')
  return till and tonumber(score) <= tonumber(till) and (from == '-inf' or tonumber(score) > tonumber(from))
end

--- look_at_waiting: whether a claim will come to a message in main. heads: flow -> its first message, as this call leaves it.
local function look_at_waiting(id, score, raw, heads)
  if not raw then
    if not is_untold(score) and not redis.call('ZSCORE', gates.run, id) then
      note('tickets', 1)
      later('ZADD', gates.run, score, id)
    end
    return
  end
  local descriptor = gates.parsed(raw)
  local flow = descriptor.flow
  local holder = descriptor.kind ~= 'F' and redis.call('HGET', gates.lanes, flow)
  if holder == id then
    if not reachable(flow) then
      note('tickets', 1)
      tell(flow, score, raw)
    end
    return
  end
  local head = heads[flow]
  if not head then
    local first = redis.call('ZRANGE', gates.flow .. flow, 0, 0, 'WITHSCORES')
    head = { id = first[1], score = tonumber(first[2]) }
    heads[flow] = head
  end
  if not redis.call('ZSCORE', gates.flow .. flow, id) then
    note('tickets', 1)
    later('ZADD', gates.flow .. flow, score, id)
    if not head.id or tonumber(score) < head.score then
      head.id, head.score, head.is_new = id, tonumber(score), true
    end
  end
  if head.id == id and not holder then
    head.raw = raw
  end
end

--- look_at_heads: whether a claim will come to the first messages of flows that nobody holds.
local function look_at_heads(heads)
  for flow, head in pairs(heads) do
    local lost = head.raw and not reachable(flow)
    if lost and not head.is_new then
      note('tickets', 1)
    end
    if lost or head.raw and head.is_new then
      tell(flow, int(head.score), head.raw)
    end
  end
end

--- look_at_bodies: messages of a page of that state that have no body. Nobody can bring it back.
local function look_at_bodies(key, rows)
  local ids, scores, heads = {}, {}, {}
  for i = 1, #rows, 2 do
    if redis.call('HEXISTS', MESSAGES, rows[i]) == 0 then
      ids[#ids + 1], scores[#scores + 1] = rows[i], rows[i + 1]
    end
  end
  if #ids == 0 then
    return
  end
  local metas, raws = metas_of(queue, ids), gates and redis.call('HMGET', gates.needs, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    -- One that is in retry was started, and holds its lane.
    local descriptor = (key == MAIN or key == DELAYED) and raws[i] and gates.parsed(raws[i])
    if gates and key == MAIN then
      -- Its flow is whole before it leaves it.
      look_at_waiting(id, scores[i], raws[i], heads)
    end
    if descriptor and descriptor.kind == 'H' and redis.call('HGET', gates.lanes, descriptor.flow) ~= id then
      -- As a dead letter it would hold the lane, and those in front of it come first.
      note('in_turn', 1)
    elseif key ~= DLQ or read_meta(metas[i]).reason ~= 'body_missing' then
      note('bodiless', 1)
      buried[#buried + 1] = { id, key, metas[i], raws[i] }
    end
  end
  look_at_heads(heads)
end

--- bury: make a message without a body a dead letter. One that is dead already keeps its place, and what it died of.
local function bury(id, key, raw_meta, raw)
  local meta = read_meta(raw_meta)
  local before = key == DLQ and (meta.reason and ', and died before: ' .. meta.reason .. (meta.text and ' ' .. meta.text or '')) or ''
  meta.reason, meta.text = 'body_missing', 'the message has no body in ' .. MESSAGES .. before
  meta.died = key == DLQ and meta.died or queue.now
  redis.call('HSET', META, id, write_meta(meta))
  if key == DLQ then
    return
  end
  redis.call('ZADD', DLQ, int(queue.now), id)
  redis.call('ZREM', key, id)
  redis.call('HDEL', LEASES, id)
  dedupe_end(id, raw_meta, queue.now)
  local descriptor = raw and gates.parsed(raw)
  if descriptor and descriptor.kind == 'H' then
    -- It holds its lane, as a dead letter now.
    gates.unblock(descriptor.flow)
    redis.call('ZREM', gates.run, '~' .. descriptor.flow)
  elseif descriptor and descriptor.kind == 'C' and gates.holder(descriptor.flow) == id then
    gates.dead(id, raw)
  elseif gates then
    gates.forget(id, raw, key == MAIN)
  end
  tell_done(id)
end

function LOOK.main()
  look_at_bodies(MAIN, members(MAIN))
end

function LOOK.delayed()
  look_at_bodies(DELAYED, members(DELAYED))
end

function LOOK.retry()
  local rows = members(RETRY)
  look_at_bodies(RETRY, rows)
  if gates then
    look_at_holders(RETRY, rows, has_lane)
  end
end

function LOOK.dead()
  local rows = members(DLQ)
  look_at_bodies(DLQ, rows)
  if gates then
    look_at_holders(DLQ, rows, function(descriptor)
      return descriptor.kind == 'H'
    end)
  end
end

--- state_of: the sorted set where a message is, and its score there; nil when it is in none.
local function state_of(id)
  for _, key in ipairs({ MAIN, PROCESSING, DELAYED, RETRY, DLQ }) do
    local score = redis.call('ZSCORE', key, id)
    if score then
      return key, score
    end
  end
  return nil
end

--- place_of: the place in main of a message that is in no state, from what is left of it; else as if it came now.
local function place_of(id, meta, raw, lease_record)
  local _, place = read_lease(lease_record)
  place = meta.score and int(meta.score) or tonumber(place) and place
  if not place and gates then
    place = redis.call('ZSCORE', gates.run, id) or raw and redis.call('ZSCORE', gates.flow .. gates.parsed(raw).flow, id)
  end
  return place or int(take_ticks(queue, 1) - head_of(id))
end

function LOOK.messages()
  local rows, ids = fields(MESSAGES), {}
  for i = 1, #rows, 2 do
    ids[#ids + 1] = rows[i]
  end
  rows = nil
  if #ids == 0 then
    return
  end
  local leases, metas = redis.call('HMGET', LEASES, unpack(ids)), metas_of(queue, ids)
  local raws, heads = gates and redis.call('HMGET', gates.needs, unpack(ids)) or {}, {}
  for i, id in ipairs(ids) do
    local key, score = state_of(id)
    local fence, _, is_taken_back = read_lease(leases[i])
    if not key then
      local meta = read_meta(metas[i])
      if fence and not is_taken_back then
        -- Its holder extends the lease if it lives; if not, the lease ends, and a claim takes the message back.
        key, score = PROCESSING, int(queue.now + (queue.lease > 0 and queue.lease or lease))
      elseif meta.died then
        key, score = DLQ, int(meta.died)
      else
        key, score = MAIN, place_of(id, meta, raws[i], leases[i])
      end
      note(key == MAIN and 'waiting' or key == DLQ and 'dead' or 'processing', 1)
      later('ZADD', key, score, id)
    end
    if gates and key == MAIN then
      look_at_waiting(id, score, raws[i], heads)
    end
  end
  look_at_heads(heads)
end

--- slots: a living lease counts at each of its message's limits of that kind.
function LOOK.slots()
  cursor = '0'
  if redis.call('HLEN', LEASES) > LEASED then
    return
  end
  local counts, ids, now, leases = {}, {}, {}, redis.call('HGETALL', LEASES)
  for i = 1, #leases, 2 do
    local fence, _, is_taken_back = read_lease(leases[i + 1])
    if fence and not is_taken_back then
      ids[#ids + 1] = leases[i]
    end
  end
  for at = 1, #ids, 1000 do
    for _, raw in ipairs(redis.call('HMGET', gates.needs, unpack(ids, at, math.min(at + 999, #ids)))) do
      local needs = raw and needs_of(gates.parsed(raw)) or {}
      for i = 1, #needs, 3 do
        if needs[i] == 'S' then
          counts[needs[i + 1]] = (counts[needs[i + 1]] or 0) + 1
        end
      end
    end
  end
  local rows = redis.call('HGETALL', gates.slots)
  for i = 1, #rows, 2 do
    now[rows[i]] = tonumber(rows[i + 1]) or -1
    counts[rows[i]] = counts[rows[i]] or 0
  end
  for gate, count in pairs(counts) do
    if (now[gate] or 0) ~= count then
      note('slots', 1)
      if count > 0 then
        later('HSET', gates.slots, gate, int(count))
      else
        later('HDEL', gates.slots, gate)
      end
      local first = redis.call('ZRANGE', gates.waiting .. gate, 0, 0, 'WITHSCORES')
      if first[1] then
        later('ZADD', gates.run, first[2], '!' .. gate)
      end
    end
  end
end

if gates or WHAT[what] == 'all' then
  LOOK[what]()
else
  cursor = '0'
end
local stats = nil
if act and #buried > 0 then
  stats, refused = read_stats({ 'dlq_messages' })
  if not stats then
    return refused
  end
  will_end_dedupes(queue)
end
if act then
  first_write(queue)
  if queue.set_back or gates and gates.set_back then
--- @include clock
    follow_clock(queue, gates or nil)
  end
  for _, write in ipairs(writes) do
    WRITE[write[1]](write[2], write[3], write[4])
  end
  for _, each in ipairs(buried) do
    bury(each[1], each[2], each[3], each[4])
  end
  if #buried > 0 then
    if gates then
      queue.main = redis.call('ZCARD', MAIN)
      gates.arrange()
      gates.close()
    end
    add_stats(stats, { dlq_messages = what == 'dead' and 0 or #buried })
  end
  if gates and queue.group then
    redis.call('ZADD', queue.group .. ':queues', 'NX', 0, PREFIX)
  end
  if is_lost and what ~= 'slots' then
    queue.config = {}
  end
  close_queue(queue)
  if #writes + #buried > 0 then
    wake_worker()
  end
end
local reply = { cursor }
for _, word in ipairs(order) do
  reply[#reply + 1], reply[#reply + 2] = word, int(found[word])
end
return reply
