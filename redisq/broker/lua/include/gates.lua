--- gates: what a message waits for besides its turn: its lane, and limits. A queue has the keys below only while it has
--- such messages; then claim takes from `run` what it may try, not from main. Field gated of its config says so: "1", or
--- "from till": messages that came before have no ticket yet, those with these places in main.
---
--- A message without gates is its own ticket in `run`. The others belong to a flow: their lane, or the limits that they
--- name. A flow has one ticket, "~flow", however many messages wait in it. One whose first message is refused waits at the
--- gate that refused; an open gate has a ticket, "!gate", with the score of its first flow. So all compete in one order.
--- A lane's holder is its message that was started and has not ended: leased, in retry, taken back, or dead and held.
--- It is not in its flow any more.
---
--- Scripts that serve all queues include this inside a function that they call when there are gates: to make these many
--- functions would cost each call on a queue without them 3 us.
--- @include queue
--- @include group
--- @include descriptor

-- A gate that opens by hand is looked at again after so many us, should the hand have died before it was done.
local LOOK_AGAIN = 600000000

--- mended: the reply of a command on a flow, or on what waits at a gate, given the error of its first try. A key of another type
--- gives way: it is not known before the first write, and what was there is lost since another program wrote over it.
local function mended(failure, command, key, ...)
  if string.find(failure.err, '^WRONGTYPE') then
    redis.call('UNLINK', key)
  end
  return redis.call(command, key, ...)
end

--- on: such a command, with its reply. Where each message of a drain passes, `attempt` is called, and `mended` when it failed.
local attempt, type_of = redis.pcall, type
local function on(command, key, ...)
  local reply = attempt(command, key, ...)
  return type_of(reply) == 'table' and reply.err and mended(reply, command, key, ...) or reply
end

--- open_gates: the gates of the queue for one call. Reads only; the reads double as type checks, as in open_queue.
--- What changes is written by gates.close.
local function open_gates(queue)
  local shared = queue.group or PREFIX
  local gates = {
    run = PREFIX .. ':run', needs = PREFIX .. ':needs', flow = PREFIX .. ':flow:', waiting = PREFIX .. ':waiting:',
    lanes = PREFIX .. ':lanes', slots = PREFIX .. ':slots', blocked = PREFIX .. ':blocked', opens = PREFIX .. ':gates',
    tat = shared .. ':tat', pauses = shared .. ':pauses', limits = shared .. ':limits',
    untold = queue.gated and queue.gated ~= '1' and queue.gated, tats = {}, tats_changed = {}, woken = false,
  }
  local needed = redis.call('HLEN', gates.needs)
  gates.needed = needed
  gates.some_paused = redis.call('ZCARD', gates.pauses) > 0
  gates.some_blocked = redis.call('HLEN', gates.blocked) > 0
  local some_held, slots_in_use = redis.call('HLEN', gates.lanes) > 0, redis.call('HLEN', gates.slots) > 0
  redis.call('ZCARD', gates.run)
  redis.call('ZCARD', gates.opens)
  redis.call('ZCARD', gates.tat)
  redis.call('HLEN', gates.limits)
  will_touch(queue, gates.flow)
  will_touch(queue, gates.waiting)
  if queue.group then
    add_group(queue, gates)
  end

  local descriptors, holders, holders_changed = {}, {}, {}
  local slots, slots_changed, freed, pauses = {}, {}, {}, {}

  --- gates.parsed: a descriptor's parts.
  function gates.parsed(raw)
    local found = descriptors[raw]
    if not found then
      -- Somebody wrote another thing there: as good as a message that needs nothing but its turn.
      found = read_descriptor(raw) or { kind = 'F', flow = '?', rest = '' }
      descriptors[raw] = found
    end
    return found
  end

  --- gates.of: the raw descriptor of each id; false or nil for a plain message. The holders of their lanes are read too.
  function gates.of(ids)
    if needed == 0 or #ids == 0 then
      return {}
    end
    local raws, flows = redis.call('HMGET', gates.needs, unpack(ids)), {}
    if some_held then
      for i = 1, #ids do
        local descriptor = raws[i] and gates.parsed(raws[i])
        if descriptor and descriptor.kind ~= 'F' then
          flows[#flows + 1] = descriptor.flow
        end
      end
      gates.look_up(flows)
    end
    return raws
  end

  --- gates.need: new messages; {(id, descriptor)*}.
  function gates.need(flat)
    if #flat > 0 then
      redis.call('HSET', gates.needs, unpack(flat))
      needed = needed + #flat / 2
    end
  end

  --- gates.look_up: read the holders of lanes in one call.
  function gates.look_up(flows)
    if some_held and #flows > 0 then
      local found = redis.call('HMGET', gates.lanes, unpack(flows))
      for i, flow in ipairs(flows) do
        if not holders_changed[flow] then
          holders[flow] = found[i]
        end
      end
    end
  end

  --- gates.holder: the id that holds a lane, or false.
  function gates.holder(flow)
    local id = holders[flow]
    if id == nil then
      id = some_held and redis.call('HGET', gates.lanes, flow)
      holders[flow] = id
    end
    return id
  end

  --- gates.hold: from now on that id, or nobody (false), holds the lane.
  function gates.hold(flow, id)
    holders[flow], holders_changed[flow] = id, true
  end

  --- gates.lane_length: how many messages of a lane wait or run.
  function gates.lane_length(flow)
    return redis.call('ZCARD', gates.flow .. flow) + (gates.holder(flow) and 1 or 0)
  end

  --- gates.slots_of: how many slots of a gate are in use.
  function gates.slots_of(gate)
    local count = slots[gate]
    if not count then
      count = slots_in_use and tonumber(redis.call('HGET', gates.slots, gate) or 0) or 0
      slots[gate] = count
    end
    return count
  end

  function gates.take_slot(gate)
    slots[gate], slots_changed[gate] = gates.slots_of(gate) + 1, true
  end

  --- gates.free: a lease ended: its slots are free.
  function gates.free(raw)
    if not raw or not string.find(raw, ' S', 1, true) then
      return
    end
    local needs = needs_of(gates.parsed(raw))
    for i = 1, #needs, 3 do
      if needs[i] == 'S' then
        local gate = needs[i + 1]
        slots[gate], slots_changed[gate] = math.max(gates.slots_of(gate) - 1, 0), true
        freed[gate] = true
      end
    end
  end

  --- gates.paused_until: us; 0 when neither the gate nor its class is paused.
  function gates.paused_until(gate, class)
    local value = pauses[gate]
    if not value then
      value = tonumber(redis.call('ZSCORE', gates.pauses, gate) or 0)
      if class ~= gate then
        value = math.max(value, gates.paused_until(class, class))
      end
      pauses[gate] = value
    end
    return value
  end

  --- gates.pause: until then, us. Who waits there learns it when it is tried.
  function gates.pause(gate, till)
    redis.call('ZADD', gates.pauses, till == math.huge and '+inf' or int(till), gate)
    pauses[gate], gates.some_paused = till, true
    keep_while_told(gates.pauses, queue.now)
  end

  --- gates.pause_longer: until then, if it is not paused for longer.
  function gates.pause_longer(gate, till)
    if till > gates.paused_until(gate, gate) then
      gates.pause(gate, till)
    end
  end

  function gates.resume(gate)
    redis.call('ZREM', gates.pauses, gate)
    pauses = {}
  end

  --- gates.sweep: pauses that are over go, `most` at most.
  function gates.sweep(most)
    if gates.some_paused then
      local over = redis.call('ZRANGEBYSCORE', gates.pauses, '-inf', int(queue.now), 'LIMIT', 0, most)
      if #over > 0 then
        redis.call('ZREM', gates.pauses, unpack(over))
      end
    end
  end

  --- gates.kick: somebody has to look at a gate where flows wait.
  function gates.kick(gate)
    local first = on('ZRANGE', gates.waiting .. gate, 0, 0, 'WITHSCORES')
    redis.call('ZREM', gates.opens, gate)
    if first[1] then
      redis.call('ZADD', gates.run, first[2], '!' .. gate)
      gates.woken = true
    else
      redis.call('ZREM', gates.run, '!' .. gate)
    end
  end

  --- gates.kick_all: somebody has to, in whatever queue they wait.
  function gates.kick_all(gate)
    gates.kick(gate)
    if gates.group then
      gates.group.kick(gate)
    end
  end

  --- gates.kick_freed: gates that got a slot back may be tried.
  function gates.kick_freed()
    if gates.some_blocked or gates.group then
      for gate in pairs(freed) do
        gates.kick_all(gate)
      end
    end
    freed = {}
  end

  --- gates.open_due: gates whose time has come may be tried, `most` at most.
  function gates.open_due(most)
    for _, gate in ipairs(redis.call('ZRANGEBYSCORE', gates.opens, '-inf', int(queue.now), 'LIMIT', 0, most)) do
      gates.kick(gate)
    end
  end

  --- gates.next_opening: us; nil when no gate opens by itself.
  function gates.next_opening()
    return tonumber(redis.call('ZRANGE', gates.opens, 0, 0, 'WITHSCORES')[2])
  end

  --- gates.opens_at: a gate where flows wait opens by itself then, us; 0: when something is given back.
  function gates.opens_at(gate, at)
    if at > 0 then
      redis.call('ZADD', gates.opens, int(math.min(at, queue.now + LOOK_AGAIN)), gate)
    end
  end

  --- gates.wait_at: a flow waits at a gate. When it is the first there, the gate opens when it says.
  function gates.wait_at(gate, opens, flow, score)
    local waiting = gates.waiting .. gate
    redis.call('HSET', gates.blocked, flow, gate)
    on('ZADD', waiting, score, flow)
    gates.some_blocked = true
    if opens > 0 and redis.call('ZRANGE', waiting, 0, 0)[1] == flow then
      gates.opens_at(gate, opens)
    end
  end

  --- gates.unblock: take a flow from the gate where it waits; its score there, or nil.
  function gates.unblock(flow)
    local gate = gates.some_blocked and redis.call('HGET', gates.blocked, flow)
    if not gate then
      return nil
    end
    local score = on('ZSCORE', gates.waiting .. gate, flow)
    redis.call('HDEL', gates.blocked, flow)
    redis.call('ZREM', gates.waiting .. gate, flow)
    -- Who is first there now may need less.
    gates.kick(gate)
    return score
  end

  --- gates.left: whether something may be tried.
  function gates.left()
    return gates.untold or redis.call('EXISTS', gates.run) == 1
  end

  --- write_back: the fields that changed of a hash, to what text(field) says; false: it goes.
  local function write_back(key, changed, text)
    local set, gone = {}, {}
    for field in pairs(changed) do
      local value = text(field)
      if value then
        set[#set + 1], set[#set + 2] = field, value
      else
        gone[#gone + 1] = field
      end
    end
    if #set > 0 then
      redis.call('HSET', key, unpack(set))
    end
    if #gone > 0 then
      redis.call('HDEL', key, unpack(gone))
    end
  end

  --- gates.close: write what changed. The last of all.
  function gates.close()
    write_back(gates.lanes, holders_changed, function(flow)
      return holders[flow]
    end)
    write_back(gates.slots, slots_changed, function(gate)
      return slots[gate] > 0 and int(slots[gate])
    end)
    local set = {}
    for gate in pairs(gates.tats_changed) do
      set[#set + 1], set[#set + 2] = int(gates.tats[gate]), gate
    end
    if #set > 0 then
      redis.call('ZADD', gates.tat, unpack(set))
      -- Entries of the past say nothing. Some go with each call that adds, all go when nothing is granted for a minute.
      local past = redis.call('ZRANGEBYSCORE', gates.tat, '-inf', int(queue.now), 'LIMIT', 0, #set)
      if #past > 0 then
        redis.call('ZREM', gates.tat, unpack(past))
      end
      keep_while_told(gates.tat, queue.now)
    end
    if gates.group then
      gates.group.close()
    end
    -- No message with gates is left, and none waits: the queue is a plain one again.
    if queue.gated and queue.main == 0 and redis.call('EXISTS', gates.needs) == 0 then
      redis.call('DEL', gates.run, gates.opens)
      redis.call('HDEL', CONFIG, 'gated')
      gates.untold = false
    end
  end

  --- gates.unlink_dedupe: the dedupe key goes that a meta record names.
  function gates.unlink_dedupe(raw)
    local key = raw and string.match(raw, 'dedupe=(%S+)')
    if key then
      redis.call('UNLINK', PREFIX .. ':dedupe:' .. key)
    end
  end

  --- gates.unlink: all goes with its queue, dedupe keys too; but for an operator's rules.
  function gates.unlink()
    for _, raw in ipairs(redis.call('HVALS', gates.needs)) do
      redis.call('UNLINK', gates.flow .. gates.parsed(raw).flow)
    end
    for _, gate in ipairs(redis.call('HVALS', gates.blocked)) do
      redis.call('UNLINK', gates.waiting .. gate)
    end
    for _, raw in ipairs(redis.call('HVALS', META)) do
      gates.unlink_dedupe(raw)
    end
    redis.call('UNLINK', gates.run, gates.needs, gates.lanes, gates.slots, gates.blocked, gates.opens)
    if queue.group then
      redis.call('ZREM', queue.group .. ':queues', PREFIX)
    else
      redis.call('UNLINK', gates.tat, gates.pauses)
    end
  end

  return gates
end
