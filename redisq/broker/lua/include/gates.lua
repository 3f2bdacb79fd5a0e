--- gates: what a message waits for besides its turn: its lane, and limits. A queue has the keys below only while it has
--- such messages (field gated of its config); then claim takes from `run` what it may try, not from main.
---
--- A message without gates is its own ticket in `run`. The others belong to a flow: their lane, or the limits that they
--- name. A flow has one ticket, "~flow", however many messages wait in it. One whose first message is refused waits at the
--- gate that refused; an open gate has a ticket, "!gate", with the score of its first flow. So all compete in one order.
--- A lane's holder is its message that was started and has not ended: leased, in retry, taken back, or dead and held.
---
--- Descriptor of a message: "head kind flow need*"; head: head start of its priority, us; kind: C a lane, H a lane that a
--- dead letter holds, F no lane; need: "Rgate,cost" a rate, "Sgate,1" a slot; gate: class or class:instance. Rules of
--- rates: GCRA, virtual scheduling (ITU-T I.371, annex A): tat is when a gate's bucket is full again.
--- @include queue
local RUN, NEEDS, FLOW, WAITING = PREFIX .. ':run', PREFIX .. ':needs', PREFIX .. ':flow:', PREFIX .. ':waiting:'
local LANES, SLOTS, TAT, PAUSES = PREFIX .. ':lanes', PREFIX .. ':slots', PREFIX .. ':tat', PREFIX .. ':pauses'
local BLOCKED, GATES, LIMITS = PREFIX .. ':blocked', PREFIX .. ':gates', PREFIX .. ':limits'

--- read_descriptor: its parts, or nil when it is none.
local function read_descriptor(raw)
  local head, kind, flow, rest = string.match(raw, '^(%d+) ([CHF]) (%S+)(.*)$')
  if not head or string.gsub(rest, ' [RS][^ ,]+,%d+', '') ~= '' then
    return nil
  end
  return { head = tonumber(head), kind = kind, flow = flow, rest = rest }
end

--- open_gates: the gates of the queue for one call. Reads only; the reads double as type checks, as in open_queue.
local function open_gates(queue)
  local gates = { woken = false }
  local needed = redis.call('HLEN', NEEDS)
  local some_paused, some_blocked = redis.call('ZCARD', PAUSES) > 0, redis.call('HLEN', BLOCKED) > 0
  redis.call('ZCARD', RUN)
  redis.call('HLEN', LANES)
  redis.call('HLEN', SLOTS)
  redis.call('ZCARD', TAT)
  redis.call('ZCARD', GATES)
  redis.call('HLEN', LIMITS)

  local descriptors, lanes, lanes_changed = {}, {}, {}
  local slots, slots_changed, freed, tats, tats_changed = {}, {}, {}, {}, {}
  local classes, instances, pauses, shut = {}, nil, {}, {}
  local tickets, arrivals, arrived = {}, {}, {}

  --- gates.of: the raw descriptor of each id; false for a plain message.
  function gates.of(ids)
    if needed == 0 or #ids == 0 then
      return {}
    end
    return redis.call('HMGET', NEEDS, unpack(ids))
  end

  --- gates.need: new messages; (id, descriptor)*.
  function gates.need(flat)
    if #flat > 0 then
      redis.call('HSET', NEEDS, unpack(flat))
      needed = needed + #flat / 2
    end
  end

  local function parsed(raw)
    local found = descriptors[raw]
    if not found then
      -- Somebody wrote another thing there: as good as a message that needs nothing but its turn.
      found = read_descriptor(raw) or { head = 0, kind = 'F', flow = '?', rest = '' }
      descriptors[raw] = found
    end
    return found
  end

  local function needs_of(descriptor)
    local needs = descriptor.needs
    if not needs then
      needs = {}
      for kind, gate, cost in string.gmatch(descriptor.rest, ' (%u)([^ ,]+),(%d+)') do
        local at = #needs
        needs[at + 1], needs[at + 2], needs[at + 3] = kind, gate, tonumber(cost)
      end
      descriptor.needs = needs
    end
    return needs
  end

  --- gates.holder: the id that holds a lane, or false.
  local function holder(flow)
    local id = lanes[flow]
    if id == nil then
      id = redis.call('HGET', LANES, flow)
      lanes[flow] = id
    end
    return id
  end

  local function hold(flow, id)
    lanes[flow], lanes_changed[flow] = id, true
  end

  local function slots_of(gate)
    local count = slots[gate]
    if not count then
      count = tonumber(redis.call('HGET', SLOTS, gate) or 0)
      slots[gate] = count
    end
    return count
  end

  local function class_of(gate)
    return string.match(gate, '^[^:]+')
  end

  --- limit_of: "count period burst" or "n": an operator's for the gate, for its class, or the code's; false: no limit.
  local function limit_of(gate, class)
    local limit = classes[class]
    if limit == nil then
      local found = redis.call('HMGET', LIMITS, '=' .. class, class, '=*')
      limit = found[1] or found[2]
      classes[class], instances = limit, found[3]
    end
    if instances and gate ~= class then
      return redis.call('HGET', LIMITS, '=' .. gate) or limit
    end
    return limit
  end

  --- paused_until: us; 0 when neither the gate nor its class is paused.
  local function paused_until(gate, class)
    local value = pauses[gate]
    if not value then
      value = tonumber(redis.call('ZSCORE', PAUSES, gate) or 0)
      if class ~= gate then
        value = math.max(value, paused_until(class, class))
      end
      pauses[gate] = value
    end
    return value
  end

  local function tat_of(gate)
    local tat = tats[gate]
    if not tat then
      tat = tonumber(redis.call('ZSCORE', TAT, gate) or 0)
      tats[gate] = tat
    end
    return tat
  end

  local function spacing(limit, cost)
    local count, period, burst = string.match(limit, '^(%d+) (%d+) (%d+)$')
    if not count or count == '0' then
      return nil
    end
    -- Up for the step, down for the tolerance: never a grant too many.
    local step = math.ceil(cost * period / count)
    return step, math.max(math.floor(burst * period / count), step)
  end

  --- refusal: the gate that refuses, and when it opens in us (0: when something is given back; huge: by hand); nil: none.
  --- What a grant would change is left in `due`, `due_count`.
  local due, due_count = {}, 0
  local function refusal(descriptor, score, via)
    local refusing, opens = nil, -1
    due_count = 0
    if some_paused then
      local till = paused_until(descriptor.flow, descriptor.flow)
      if till > queue.now then
        refusing, opens = descriptor.flow, till
      end
    end
    local needs = needs_of(descriptor)
    for i = 1, #needs, 3 do
      local kind, gate, cost = needs[i], needs[i + 1], needs[i + 2]
      local known = shut[gate]
      if known and gate ~= via then
        -- Found shut in this call: nobody behind who waits there needs to look further.
        return gate, known
      end
      local class = class_of(gate)
      local till = some_paused and paused_until(gate, class) or 0
      local at = nil
      if till > queue.now then
        at = till
      elseif kind == 'R' then
        local limit = cost > 0 and limit_of(gate, class)
        if limit then
          local step, tau = spacing(limit, cost)
          if step then
            local tat = math.max(tat_of(gate), queue.now) + step
            if tat - tau > queue.now then
              at = tat - tau
            else
              due[due_count + 1], due[due_count + 2], due[due_count + 3] = kind, gate, tat
              due_count = due_count + 3
            end
          end
        end
      else
        local limit = tonumber(limit_of(gate, class) or nil)
        if limit and slots_of(gate) >= limit then
          at = 0
        end
        due[due_count + 1], due[due_count + 2] = kind, gate
        due_count = due_count + 3
      end
      if not at and some_blocked and gate ~= via then
        -- No barging: else cheap calls keep a dear one waiting for ever.
        local first = redis.call('ZRANGE', WAITING .. gate, 0, 0, 'WITHSCORES')
        if first[1] and first[1] ~= descriptor.flow and tonumber(first[2]) < score then
          at = 0
        end
      end
      if at and at > opens then
        refusing, opens = gate, at
      end
    end
    return refusing, opens
  end

  local function grant()
    for i = 1, due_count, 3 do
      local gate = due[i + 1]
      if due[i] == 'R' then
        tats[gate], tats_changed[gate] = due[i + 2], true
      else
        slots[gate], slots_changed[gate] = slots_of(gate) + 1, true
      end
    end
  end

  --- kick: somebody has to look at a gate where flows wait.
  local function kick(gate)
    local first = redis.call('ZRANGE', WAITING .. gate, 0, 0, 'WITHSCORES')
    redis.call('ZREM', GATES, gate)
    if first[1] then
      redis.call('ZADD', RUN, first[2], '!' .. gate)
      gates.woken = true
    end
  end
  gates.kick = kick

  --- unblock: take a flow from the gate where it waits; its score there, or nil.
  local function unblock(flow)
    local gate = some_blocked and redis.call('HGET', BLOCKED, flow)
    if not gate then
      return nil
    end
    local score = redis.call('ZSCORE', WAITING .. gate, flow)
    redis.call('HDEL', BLOCKED, flow)
    redis.call('ZREM', WAITING .. gate, flow)
    -- Who is first there now may need less.
    kick(gate)
    return score
  end

  --- wait_at: the flow waits at a gate. When it is the first there, the gate opens when it says.
  local function wait_at(gate, opens, flow, score)
    local waiting = WAITING .. gate
    redis.call('HSET', BLOCKED, flow, gate)
    redis.call('ZADD', waiting, score, flow)
    some_blocked = true
    if opens > 0 and opens < math.huge and redis.call('ZRANGE', waiting, 0, 0)[1] == flow then
      redis.call('ZADD', GATES, int(opens), gate)
    end
  end

  --- ticket: a flow may go on: with its first message's score; `turn`: behind all that wait now.
  local function ticket(flow, turn)
    unblock(flow)
    local id, score = holder(flow), nil
    if id then
      score = redis.call('ZSCORE', MAIN, id)
    else
      local row = redis.call('ZRANGE', FLOW .. flow, 0, 0, 'WITHSCORES')
      score = row[2]
      if score and turn then
        local raw = redis.call('HGET', NEEDS, row[1])
        score = int(take_ticks(queue, 1) - (raw and parsed(raw).head or 0))
      end
    end
    if score then
      redis.call('ZADD', RUN, score, '~' .. flow)
      gates.woken = true
    else
      redis.call('ZREM', RUN, '~' .. flow)
    end
  end

  --- gates.admit: a message waits in main now, with that score. Takes effect with gates.arrange.
  function gates.admit(id, score, raw)
    if not raw then
      tickets[#tickets + 1], tickets[#tickets + 2] = score, id
      return
    end
    local flow = parsed(raw).flow
    local group = arrivals[flow]
    if not group then
      group = { ids = {} }
      arrivals[flow], arrived[#arrived + 1] = group, flow
    end
    if parsed(raw).kind ~= 'F' and holder(flow) == id then
      group.back = true
    else
      group[#group + 1], group[#group + 2] = score, id
      group.ids[id] = true
    end
  end

  --- gates.arrange: what was admitted gets its tickets.
  function gates.arrange()
    if #tickets > 0 then
      redis.call('ZADD', RUN, unpack(tickets))
      gates.woken, tickets = true, {}
    end
    for _, flow in ipairs(arrived) do
      local group = arrivals[flow]
      if #group > 0 then
        redis.call('ZADD', FLOW .. flow, unpack(group))
      end
      if group.back then
        ticket(flow)
      elseif not holder(flow) and group.ids[redis.call('ZRANGE', FLOW .. flow, 0, 0)[1]] then
        ticket(flow)
      end
    end
    arrivals, arrived = {}, {}
  end

  --- gates.free: a lease ended: its slots are free.
  function gates.free(raw)
    local needs = raw and needs_of(parsed(raw)) or {}
    for i = 1, #needs, 3 do
      if needs[i] == 'S' then
        local gate = needs[i + 1]
        slots[gate], slots_changed[gate] = math.max(slots_of(gate) - 1, 0), true
        freed[gate] = true
      end
    end
  end

  --- gates.forget: a message goes for good. One that nobody leased is in its flow still, or has a ticket of its own.
  function gates.forget(id, raw, was_leased)
    if not raw then
      if not was_leased then
        redis.call('ZREM', RUN, id)
      end
      return
    end
    redis.call('HDEL', NEEDS, id)
    local descriptor = parsed(raw)
    local flow = descriptor.flow
    if descriptor.kind ~= 'F' and holder(flow) == id then
      hold(flow, false)
      ticket(flow, true)
    elseif not was_leased then
      local was_first = redis.call('ZRANGE', FLOW .. flow, 0, 0)[1] == id
      redis.call('ZREM', FLOW .. flow, id)
      if was_first then
        if redis.call('EXISTS', FLOW .. flow) == 0 and not holder(flow) then
          unblock(flow)
          redis.call('ZREM', RUN, '~' .. flow)
        else
          -- Its follower may need other things: it is looked at, with the flow's place in the order.
          local score = unblock(flow)
          if score then
            redis.call('ZADD', RUN, score, '~' .. flow)
            gates.woken = true
          end
        end
      end
    end
  end

  --- gates.dead: it died while leased: its lane goes on, unless it is to wait for an operator. The descriptor stays.
  function gates.dead(id, raw)
    local descriptor = raw and parsed(raw)
    if descriptor and descriptor.kind == 'C' and holder(descriptor.flow) == id then
      hold(descriptor.flow, false)
      ticket(descriptor.flow, true)
    end
  end

  --- gates.limited: a gate is paused until then, if that is longer than it is. Who waits there learns it when it is tried.
  function gates.limited(gate, till)
    if till > paused_until(gate, gate) then
      redis.call('ZADD', PAUSES, int(till), gate)
      pauses[gate], some_paused = till, true
    end
  end

  --- gates.holds: whether that message holds its lane.
  function gates.holds(id, raw)
    local descriptor = raw and parsed(raw)
    return descriptor and descriptor.kind ~= 'F' and holder(descriptor.flow) == id
  end

  --- gates.lane_length: how many messages of a lane wait or run; 0 for a flow without lane.
  function gates.lane_length(flow)
    return redis.call('ZCARD', FLOW .. flow) + (holder(flow) and 1 or 0)
  end

  --- gates.open_due: gates whose time has come may be tried, `most` at most.
  function gates.open_due(most)
    local opened = redis.call('ZRANGEBYSCORE', GATES, '-inf', int(queue.now), 'LIMIT', 0, most)
    for _, gate in ipairs(opened) do
      kick(gate)
    end
  end

  --- gates.next_opening: us; nil when no gate opens by itself.
  function gates.next_opening()
    return tonumber(redis.call('ZRANGE', GATES, 0, 0, 'WITHSCORES')[2])
  end

  --- gates.tell_old: messages that came before the queue's first gate get their tickets, so many a call, first ones first.
  function gates.tell_old(most)
    local from, till = string.match(queue.untold, '^(%S+) (%d+)$')
    if not from then
      return
    end
    local rows = redis.call('ZRANGEBYSCORE', MAIN, from, till, 'WITHSCORES', 'LIMIT', 0, most)
    local last = rows[#rows]
    if last and '(' .. last ~= from and #rows == 2 * most then
      -- All with the last score: the next call begins behind it.
      local same = redis.call('ZRANGEBYSCORE', MAIN, last, last, 'WITHSCORES')
      for i = 1, #same do
        rows[#rows + 1] = same[i]
      end
    end
    local ids, added = {}, {}
    for i = 1, #rows, 2 do
      ids[#ids + 1] = rows[i]
    end
    for i, raw in ipairs(gates.of(ids)) do
      ids[i] = not raw and ids[i]
    end
    for i, id in ipairs(ids) do
      if id then
        added[#added + 1], added[#added + 2] = rows[2 * i], id
      end
    end
    for i = 1, #added, 2000 do
      redis.call('ZADD', RUN, unpack(added, i, math.min(i + 1999, #added)))
    end
    queue.untold = #rows >= 2 * most and '(' .. last .. ' ' .. till or ''
    local config = queue.config
    config[#config + 1], config[#config + 2] = 'untold', queue.untold
  end

  --- gates.take: up to `limit` messages that may run now, after at most `tries` refusals: ids, their scores.
  --- is_gone(id): whether it is not wanted any more; then it is forgotten, and must have left main.
  function gates.take(limit, tries, is_gone)
    local ids, scores = {}, {}
    local rows, at = {}, 1

    local function next_score()
      if rows[at + 3] then
        return tonumber(rows[at + 3])
      end
      return tonumber(redis.call('ZRANGE', RUN, 0, 0, 'WITHSCORES')[2] or 'inf')
    end

    --- try: the first message of a flow. 'granted'; 'refused', gate, when it opens; 'empty'.
    local function try(flow, score, via)
      while true do
        local id, place, started = holder(flow), nil, true
        if id then
          place = redis.call('ZSCORE', MAIN, id)
        else
          local row = redis.call('ZRANGE', FLOW .. flow, 0, 0, 'WITHSCORES')
          id, place, started = row[1], row[2], false
        end
        if not id or not place then
          return 'empty'
        end
        local raw = redis.call('HGET', NEEDS, id)
        local descriptor = raw and parsed(raw) or { kind = 'F', flow = flow, rest = '' }
        if is_gone(id) then
          if started then
            hold(flow, false)
          else
            redis.call('ZREM', FLOW .. flow, id)
          end
          redis.call('HDEL', NEEDS, id)
        else
          local gate, opens = refusal(descriptor, score, via)
          if gate then
            if opens > 0 then
              shut[gate] = opens
            end
            return 'refused', gate, opens
          end
          grant()
          if not started then
            redis.call('ZREM', FLOW .. flow, id)
            if descriptor.kind ~= 'F' then
              hold(flow, id)
            end
          end
          ids[#ids + 1], scores[#scores + 1] = id, place
          return 'granted', descriptor.kind
        end
      end
    end

    --- follower: the score of the message that comes next in a flow without lane; nil when there is none.
    local function follower(flow)
      return redis.call('ZRANGE', FLOW .. flow, 0, 0, 'WITHSCORES')[2]
    end

    local function serve_flow(flow, score)
      while true do
        local how, what, opens = try(flow, tonumber(score))
        if how == 'refused' then
          tries = tries - 1
          wait_at(what, opens, flow, score)
          return
        end
        score = how == 'granted' and what == 'F' and follower(flow)
        if not score then
          return
        end
        if #ids >= limit or tonumber(score) > next_score() then
          redis.call('ZADD', RUN, score, '~' .. flow)
          return
        end
      end
    end

    local function serve_gate(gate)
      local waiting = WAITING .. gate
      while true do
        local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
        local flow, score = first[1], first[2]
        if not flow then
          return
        end
        if #ids >= limit or tries <= 0 or tonumber(score) > next_score() then
          redis.call('ZADD', RUN, score, '!' .. gate)
          return
        end
        local how, what, opens = try(flow, tonumber(score), gate)
        if how == 'refused' and what == gate then
          if opens > 0 and opens < math.huge then
            redis.call('ZADD', GATES, int(opens), gate)
          end
          return
        end
        local again = how == 'granted' and what == 'F' and follower(flow)
        if again then
          redis.call('ZADD', waiting, again, flow)
        else
          redis.call('ZREM', waiting, flow)
          redis.call('HDEL', BLOCKED, flow)
          if how == 'refused' then
            tries = tries - 1
            wait_at(what, opens, flow, score)
          end
        end
      end
    end

    while #ids < limit and tries > 0 do
      rows, at = redis.call('ZPOPMIN', RUN, math.min(limit - #ids, 100)), 1
      if #rows == 0 then
        break
      end
      while at <= #rows do
        local name, score = rows[at], rows[at + 1]
        if #ids >= limit or tries <= 0 then
          local back = {}
          for i = at, #rows, 2 do
            back[#back + 1], back[#back + 2] = rows[i + 1], rows[i]
          end
          redis.call('ZADD', RUN, unpack(back))
          break
        end
        local mark = string.sub(name, 1, 1)
        if mark == '~' then
          serve_flow(string.sub(name, 2), score)
        elseif mark == '!' then
          serve_gate(string.sub(name, 2))
        else
          ids[#ids + 1], scores[#scores + 1] = name, score
        end
        at = at + 2
      end
    end
    return ids, scores
  end

  --- gates.close: write what changed, and let gates be tried where a slot is free again.
  function gates.close()
    local set, gone = {}, {}
    for flow in pairs(lanes_changed) do
      if lanes[flow] then
        set[#set + 1], set[#set + 2] = flow, lanes[flow]
      else
        gone[#gone + 1] = flow
      end
    end
    if #set > 0 then redis.call('HSET', LANES, unpack(set)) end
    if #gone > 0 then redis.call('HDEL', LANES, unpack(gone)) end
    set, gone = {}, {}
    for gate in pairs(slots_changed) do
      if slots[gate] > 0 then
        set[#set + 1], set[#set + 2] = gate, int(slots[gate])
      else
        gone[#gone + 1] = gate
      end
    end
    if #set > 0 then redis.call('HSET', SLOTS, unpack(set)) end
    if #gone > 0 then redis.call('HDEL', SLOTS, unpack(gone)) end
    set = {}
    for gate in pairs(tats_changed) do
      set[#set + 1], set[#set + 2] = int(tats[gate]), gate
    end
    if #set > 0 then
      redis.call('ZADD', TAT, unpack(set))
      -- Entries of the past say nothing. Some go with each call that adds, all go when nothing is granted for a minute.
      local past = redis.call('ZRANGEBYSCORE', TAT, '-inf', int(queue.now), 'LIMIT', 0, #set)
      if #past > 0 then redis.call('ZREM', TAT, unpack(past)) end
      local last = tonumber(redis.call('ZRANGE', TAT, -1, -1, 'WITHSCORES')[2] or queue.now)
      redis.call('PEXPIRE', TAT, int(math.ceil(math.max(last - queue.now, 0) / 1000) + 60000))
    end
    for gate in pairs(freed) do
      kick(gate)
    end
  end

  --- gates.left: whether something may be tried.
  function gates.left()
    return redis.call('EXISTS', RUN) == 1
  end

  --- gates.sweep: pauses that are over go.
  function gates.sweep(most)
    if some_paused then
      local over = redis.call('ZRANGEBYSCORE', PAUSES, '-inf', int(queue.now), 'LIMIT', 0, most)
      if #over > 0 then redis.call('ZREM', PAUSES, unpack(over)) end
    end
  end

  --- gates.end_if_over: no message with gates is left, and none waits: the queue is a plain one again.
  function gates.end_if_over()
    if queue.main == 0 and redis.call('EXISTS', NEEDS) == 0 then
      redis.call('DEL', RUN)
      redis.call('HDEL', CONFIG, 'gated', 'untold')
    end
  end

  return gates
end
