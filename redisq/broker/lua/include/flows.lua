--- flows: how messages get into their flows, and what becomes of a flow when one leaves it.
--- @include gates

--- open_flows: the gates of a queue, with admit, forget, dead, and arrange, which makes their tickets.
local function open_flows(queue)
  local gates = open_gates(queue)
  local tickets, stale, needless = {}, {}, {} -- of plain messages, to come and to go; ids without needs from now on
  -- What happened in this call to a flow: arrived: {ids}; scored: {(score, id)*}; back: its holder waits again; turned:
  -- its holder ended; headless: its first message left it.
  local arrived, scored, back, turned, headless, listed = {}, {}, {}, {}, {}, {}

  --- gates.admit: a message waits in main now, with that score.
  function gates.admit(id, score, raw)
    if not raw then
      tickets[#tickets + 1], tickets[#tickets + 2] = score, id
      return
    end
    local descriptor = gates.parsed(raw)
    local flow = descriptor.flow
    listed[#listed + 1] = flow
    if descriptor.kind ~= 'F' and gates.holder(flow) == id then
      back[flow] = true
      return
    end
    local flat = scored[flow]
    if not flat then
      flat = {}
      scored[flow], arrived[flow] = flat, {}
    end
    flat[#flat + 1], flat[#flat + 2] = score, id
    arrived[flow][id] = true
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
    local descriptor = gates.parsed(raw)
    local flow = descriptor.flow
    if descriptor.kind ~= 'F' and gates.holder(flow) == id then
      gates.hold(flow, false)
      turned[flow], listed[#listed + 1] = true, flow
    elseif waits then
      local first = on('ZRANGE', gates.flow .. flow, 0, 0)[1]
      redis.call('ZREM', gates.flow .. flow, id)
      if first == id then
        headless[flow], listed[#listed + 1] = true, flow
      end
    end
  end

  --- gates.dead: it died while leased: its lane goes on, unless it is to wait for an operator. The descriptor stays.
  function gates.dead(id, raw)
    local descriptor = raw and gates.parsed(raw)
    if descriptor and descriptor.kind == 'C' and gates.holder(descriptor.flow) == id then
      gates.hold(descriptor.flow, false)
      turned[descriptor.flow], listed[#listed + 1] = true, descriptor.flow
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
    local turning, next_ids, ticketless, seen = {}, {}, {}, {}

    --- look_at: whether a flow needs a ticket, and with which place in the order.
    local function look_at(flow)
      local held = gates.holder(flow)
      if held then
        local score = back[flow] and redis.call('ZSCORE', MAIN, held)
        if score then
          gates.unblock(flow)
          tickets[#tickets + 1], tickets[#tickets + 2] = score, '~' .. flow
        end
        return
      end
      -- Without its score when that does not count: to write one as text takes longer than to find it.
      local name = gates.flow .. flow
      local first = turned[flow] and attempt('ZRANGE', name, 0, 0) or attempt('ZRANGE', name, 0, 0, 'WITHSCORES')
      if first.err then
        first = mended(first, 'ZRANGE', name, 0, 0, 'WITHSCORES')
      end
      local id, score = first[1], first[2]
      if not id then
        ticketless[#ticketless + 1] = '~' .. flow
        gates.unblock(flow)
      elseif turned[flow] then
        -- Behind all that wait now: lanes take turns.
        if gates.some_blocked then
          gates.unblock(flow)
        end
        turning[#turning + 1], next_ids[#next_ids + 1] = flow, id
      elseif arrived[flow] and arrived[flow][id] then
        gates.unblock(flow)
        tickets[#tickets + 1], tickets[#tickets + 2] = score, '~' .. flow
      elseif headless[flow] then
        -- Its follower may need other things: it is looked at, with the flow's place in the order.
        local place = gates.unblock(flow)
        if place then
          tickets[#tickets + 1], tickets[#tickets + 2] = place, '~' .. flow
        end
      end
    end

    for i = 1, #listed do
      local flow = listed[i]
      if not seen[flow] then
        seen[flow] = true
        if scored[flow] then
          on('ZADD', gates.flow .. flow, unpack(scored[flow]))
        end
        look_at(flow)
      end
    end
    if #turning > 0 then
      local raws, tick, firsts = redis.call('HMGET', gates.needs, unpack(next_ids)), take_ticks(queue, #turning), {}

      --- barred: a gate that somebody waits for in front of that place: it lets nobody else pass.
      local function barred(raw, score)
        local needs = raw and needs_of(gates.parsed(raw)) or {}
        for i = 2, #needs, 3 do
          local gate = needs[i]
          local first = firsts[gate]
          if first == nil then
            first = tonumber(on('ZRANGE', gates.waiting .. gate, 0, 0, 'WITHSCORES')[2] or nil) or false
            firsts[gate] = first
          end
          if first and first < score then
            return gate
          end
        end
        return nil
      end

      for i, flow in ipairs(turning) do
        local raw = raws[i]
        local head = raw and string.sub(raw, 1, 2) ~= '0 ' and tonumber(string.match(raw, '^%d+')) or 0
        local score = tick + i - 1 - head
        local gate = gates.some_blocked and barred(raw, score)
        if gate then
          gates.wait_at(gate, 0, flow, int(score))
          ticketless[#ticketless + 1] = '~' .. flow
        else
          tickets[#tickets + 1], tickets[#tickets + 2] = score, '~' .. flow
        end
      end
    end
    if #ticketless > 0 then
      redis.call('ZREM', gates.run, unpack(ticketless))
    end
    if #tickets > 0 then
      redis.call('ZADD', gates.run, unpack(tickets))
      gates.woken = true
    end
    tickets, stale, needless = {}, {}, {}
    arrived, scored, back, turned, headless, listed = {}, {}, {}, {}, {}, {}
    gates.kick_freed()
  end

  return gates
end
