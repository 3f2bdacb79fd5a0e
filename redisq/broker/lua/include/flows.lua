--- flows: how messages get into their flows, and what becomes of a flow when one leaves it.
--- @include gates

--- open_flows: the gates of a queue, with admit, forget, dead, and arrange, which makes their tickets.
local function open_flows(queue)
  local gates = open_gates(queue)
  local tickets, stale, needless = {}, {}, {} -- of plain messages, to come and to go; ids without needs from now on
  local flows, listed = {}, {} -- flow -> what happened to it in this call; in the order of events

  local function changed(flow)
    local change = flows[flow]
    if not change then
      change = { ids = {}, scored = {} }
      flows[flow], listed[#listed + 1] = change, flow
    end
    return change
  end

  --- gates.admit: a message waits in main now, with that score.
  function gates.admit(id, score, raw)
    if not raw then
      tickets[#tickets + 1], tickets[#tickets + 2] = score, id
      return
    end
    local change = changed(gates.parsed(raw).flow)
    if gates.holds(id, raw) then
      change.back = true
    else
      local scored = change.scored
      scored[#scored + 1], scored[#scored + 2] = score, id
      change.ids[id] = true
    end
  end

  --- gates.forget: a message goes for good; `waits`: it was in main until now.
  function gates.forget(id, raw, waits)
    if not raw then
      if waits then
        stale[#stale + 1] = id
      end
      return
    end
    needless[#needless + 1] = id
    local flow = gates.parsed(raw).flow
    if gates.holds(id, raw) then
      gates.hold(flow, false)
      changed(flow).turn = true
    elseif waits then
      local first = redis.call('ZRANGE', gates.flow .. flow, 0, 0)[1]
      redis.call('ZREM', gates.flow .. flow, id)
      if first == id then
        changed(flow).headless = true
      end
    end
  end

  --- gates.dead: it died while leased: its lane goes on, unless it is to wait for an operator. The descriptor stays.
  function gates.dead(id, raw)
    local descriptor = raw and gates.parsed(raw)
    if descriptor and descriptor.kind == 'C' and gates.holds(id, raw) then
      gates.hold(descriptor.flow, false)
      changed(descriptor.flow).turn = true
    end
  end

  --- gates.arrange: what happened takes effect.
  function gates.arrange()
    if #stale > 0 then
      redis.call('ZREM', gates.run, unpack(stale))
    end
    if #needless > 0 then
      redis.call('HDEL', gates.needs, unpack(needless))
    end
    local turning, next_ids, emptied = {}, {}, {}
    for _, flow in ipairs(listed) do
      local change, first = flows[flow], nil
      if #change.scored > 0 then
        redis.call('ZADD', gates.flow .. flow, unpack(change.scored))
      end
      local held = gates.holder(flow)
      if not held then
        first = redis.call('ZRANGE', gates.flow .. flow, 0, 0, 'WITHSCORES')
      end
      if held then
        local score = change.back and redis.call('ZSCORE', MAIN, held)
        if score then
          gates.unblock(flow)
          tickets[#tickets + 1], tickets[#tickets + 2] = score, '~' .. flow
        end
      elseif not first[1] then
        gates.unblock(flow)
        emptied[#emptied + 1] = '~' .. flow
      elseif change.turn then
        -- Behind all that wait now: lanes take turns.
        gates.unblock(flow)
        turning[#turning + 1], next_ids[#next_ids + 1] = flow, first[1]
      elseif change.ids[first[1]] then
        gates.unblock(flow)
        tickets[#tickets + 1], tickets[#tickets + 2] = first[2], '~' .. flow
      elseif change.headless then
        -- Its follower may need other things: it is looked at, with the flow's place in the order.
        local score = gates.unblock(flow)
        if score then
          tickets[#tickets + 1], tickets[#tickets + 2] = score, '~' .. flow
        end
      end
    end
    if #turning > 0 then
      local raws, tick = redis.call('HMGET', gates.needs, unpack(next_ids)), take_ticks(queue, #turning)
      for i, flow in ipairs(turning) do
        local head = raws[i] and tonumber(string.match(raws[i], '^%d+')) or 0
        tickets[#tickets + 1], tickets[#tickets + 2] = int(tick + i - 1 - head), '~' .. flow
      end
    end
    if #emptied > 0 then
      redis.call('ZREM', gates.run, unpack(emptied))
    end
    if #tickets > 0 then
      redis.call('ZADD', gates.run, unpack(tickets))
      gates.woken = true
    end
    tickets, stale, needless, flows, listed = {}, {}, {}, {}, {}
    gates.kick_freed()
  end

  return gates
end
