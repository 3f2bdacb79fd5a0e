--- take: which messages of a queue with gates run next.
--- @include gates
--- @include limits

-- What has no room costs so much of a refusal: less is done for it.
local LATER = 0.25

--- add_take: gates.tell_old, gates.take.
local function add_take(queue, gates)
  add_limits(queue, gates)

  --- gates.tell_old: messages that came before the queue's first gate get their tickets, `most` a call, first ones first.
  function gates.tell_old(most)
    if not gates.untold then
      return
    end
    local from, till = string.match(gates.untold, '^(%S+) (%S+)$')
    local rows = redis.call('ZRANGEBYSCORE', MAIN, from, till, 'WITHSCORES', 'LIMIT', 0, most)
    local last = #rows == 2 * most and rows[#rows]
    if last then
      -- All with the last score: the next call begins behind it.
      for _, value in ipairs(redis.call('ZRANGEBYSCORE', MAIN, last, last, 'WITHSCORES')) do
        rows[#rows + 1] = value
      end
    end
    local ids, told = {}, {}
    for i = 1, #rows, 2 do
      ids[#ids + 1] = rows[i]
    end
    for at = 1, #ids, 1000 do
      local page = { unpack(ids, at, math.min(at + 999, #ids)) }
      local raws = gates.of(page)
      for i, id in ipairs(page) do
        if not raws[i] then
          told[#told + 1], told[#told + 2] = rows[2 * (at + i - 1)], id
        end
      end
    end
    for i = 1, #told, 2000 do
      redis.call('ZADD', gates.run, unpack(told, i, math.min(i + 1999, #told)))
    end
    gates.untold = last and '(' .. last .. ' ' .. till
    redis.call('HSET', CONFIG, 'gated', gates.untold or '1')
  end

  --- gates.take: {(id, place)*} of up to `limit` messages that may run now, after at most `tries` that may not. And the
  --- ids that are not in main any more. The caller decides, before a message spends anything. unwanted(id), or false, asked first: 'gone',
  --- it is not wanted, and has left the queue, but for main; 'aside', it was put aside, and keeps its lane. unfit(id), asked when
  --- no gate refuses it: 'dead', it is a dead letter now; 'later', it stays where it is; 'full', so do all others; nil, it
  --- passes. crowded(id), or false, asked when a gate refuses it in a group: 'later' or 'full', or nil, it waits at the gate.
  --- expect(ids): these come soon.
  function gates.take(limit, tries, caller)
    local taken, count, gone = {}, 0, {}
    local unwanted, unfit = caller.unwanted, caller.unfit
    local rows, at = {}, 1
    -- Tickets of what stays: back in `run` at the end, so that no later turn of this call meets them again.
    local kept = {}
    -- What was read ahead: flow -> {id, score} of its first message; whether it was taken out of the flow; id -> descriptor.
    local heads, taken_out, needs = {}, {}, {}

    local function next_score()
      return tonumber(rows[at + 3] or redis.call('ZRANGE', gates.run, 0, 0, 'WITHSCORES')[2] or 'inf')
    end

    --- read_ahead: what the first messages of flows need, in few calls. singles: messages without gates.
    local function read_ahead(flows, singles)
      local wanted = {}
      gates.look_up(flows)
      -- With nobody waiting at a gate, as good as all of them pass: they leave their flows at once.
      local easy = not gates.some_blocked and not gates.some_paused
      for _, flow in ipairs(flows) do
        local id = gates.holder(flow)
        if not id then
          local name = gates.flow .. flow
          local head = easy and attempt('ZPOPMIN', name) or attempt('ZRANGE', name, 0, 0, 'WITHSCORES')
          if head.err then
            head = mended(head, 'ZRANGE', name, 0, 0, 'WITHSCORES')
          end
          heads[flow], taken_out[flow], id = head, easy, head[1]
        end
        wanted[#wanted + 1] = id
      end
      if #wanted > 0 then
        local raws = redis.call('HMGET', gates.needs, unpack(wanted))
        for i, id in ipairs(wanted) do
          needs[id] = raws[i]
        end
      end
      local expected = easy and wanted or {}
      for _, id in ipairs(singles) do
        expected[#expected + 1] = id
      end
      caller.expect(expected)
    end

    --- put_back: what was read ahead of a flow is not taken after all.
    local function put_back(flow)
      local head = taken_out[flow] and heads[flow]
      if head and head[1] then
        redis.call('ZADD', gates.flow .. flow, head[2], head[1])
      end
      heads[flow], taken_out[flow] = nil, nil
    end

    --- leave: the first message of a flow is not in it any more.
    local function leave(flow, id)
      if not taken_out[flow] then
        redis.call('ZREM', gates.flow .. flow, id)
      end
      heads[flow], taken_out[flow] = nil, nil
    end

    --- keep: a ticket is put back when the others were tried.
    local function keep(ticket, score, verdict)
      kept[#kept + 1], kept[#kept + 2] = score, ticket
      tries = verdict == 'full' and 0 or tries - LATER
    end

    --- try: the first message of a flow. 'granted', kind (also when it is aside or dead); 'refused', gate, when it opens; 'gone';
    --- 'later'; 'empty'.
    local function try(flow, score, via)
      local id, place = gates.holder(flow), nil
      local started = id
      if id then
        place = redis.call('ZSCORE', MAIN, id)
      else
        local head = heads[flow] or on('ZRANGE', gates.flow .. flow, 0, 0, 'WITHSCORES')
        id, place = head[1], head[2]
      end
      if not id or not place then
        return 'empty'
      end
      local raw = needs[id]
      if raw == nil then
        raw = redis.call('HGET', gates.needs, id)
      end
      local descriptor = raw and gates.parsed(raw) or { kind = 'F', flow = flow, rest = '' }
      local verdict = unwanted and unwanted(id)
      if verdict == 'gone' then
        if started then
          gates.hold(flow, false)
        else
          leave(flow, id)
        end
        redis.call('HDEL', gates.needs, id)
        gone[#gone + 1] = id
        return 'gone'
      end
      if not verdict then
        local gate, opens = gates.refusal(descriptor, score, via)
        if gate then
          -- A message that waits at a gate makes the other queues of its group wait. One that has no room here must not.
          verdict = gates.group and caller.crowded and caller.crowded(id)
          if not verdict then
            put_back(flow)
            return 'refused', gate, opens
          end
        else
          verdict = unfit(id)
        end
        if verdict == 'later' or verdict == 'full' then
          put_back(flow)
          keep('~' .. flow, int(score), verdict)
          return 'later'
        end
        if not verdict then
          gates.grant()
        end
      end
      if not started then
        leave(flow, id)
        if descriptor.kind ~= 'F' then
          gates.hold(flow, id)
        end
      end
      if verdict then
        gone[#gone + 1], tries = id, tries - 1
        if verdict == 'dead' then
          gates.dead(id, raw)
        end
      else
        taken[2 * count + 1], taken[2 * count + 2], count = id, place, count + 1
      end
      return 'granted', descriptor.kind
    end

    --- follower: the score of the message that comes next in a flow without lane; nil when there is none.
    local function follower(flow)
      return redis.call('ZRANGE', gates.flow .. flow, 0, 0, 'WITHSCORES')[2]
    end

    local function serve_flow(flow, score)
      while true do
        local how, what, opens = try(flow, tonumber(score))
        if how == 'refused' then
          tries = tries - 1
          gates.wait_at(what, opens, flow, score)
          return
        end
        if how == 'later' then
          return
        end
        if how == 'gone' then
          tries = tries - 1
        else
          score = how == 'granted' and what == 'F' and follower(flow)
          if not score then
            return
          end
        end
        if count >= limit or tries <= 0 or tonumber(score) > next_score() then
          redis.call('ZADD', gates.run, score, '~' .. flow)
          return
        end
      end
    end

    local function serve_gate(gate)
      local waiting, bound, page = gates.waiting .. gate, next_score(), 1

      --- let_go: these flows do not wait here any more.
      local function let_go(flows)
        if #flows > 0 then
          redis.call('ZREM', waiting, unpack(flows))
          redis.call('HDEL', gates.blocked, unpack(flows))
        end
      end

      --- serve: the first flows that wait. Whether to go on.
      local function serve(first)
        local passed, flows = {}, {}
        for i = 1, #first, 2 do
          flows[#flows + 1] = first[i]
        end
        if #flows > 1 then
          read_ahead(flows, {})
        end
        for i, flow in ipairs(flows) do
          local score = first[2 * i]
          if count >= limit or tries <= 0 or tonumber(score) > bound then
            redis.call('ZADD', gates.run, score, '!' .. gate)
            let_go(passed)
            return false
          end
          local how, what, opens = try(flow, tonumber(score), gate)
          if how == 'refused' and what == gate then
            gates.opens_at(gate, opens)
            let_go(passed)
            return false
          end
          local again = how == 'granted' and what == 'F' and follower(flow)
          if how == 'gone' or again then
            tries = how == 'gone' and tries - 1 or tries
            if again then
              redis.call('ZADD', waiting, again, flow)
            end
            -- It may not be the first any more.
            let_go(passed)
            return true
          elseif how == 'refused' then
            tries = tries - 1
            redis.call('ZREM', waiting, flow)
            gates.wait_at(what, opens, flow, score)
          else
            passed[#passed + 1] = flow
          end
        end
        let_go(passed)
        page = math.min(2 * page, 32)
        return true
      end

      -- How many pass is known when one does not: a few more are looked at each time.
      while true do
        local first = on('ZRANGE', waiting, 0, page - 1, 'WITHSCORES')
        if #first == 0 or not serve(first) then
          return
        end
      end
    end

    while count < limit and tries > 0 do
      rows, at = redis.call('ZPOPMIN', gates.run, math.min(limit - count, 100)), 1
      if #rows == 0 then
        break
      end
      -- What each ticket is of: a flow, a gate, or (false) a message of its own.
      local marks, names, flows, singles = {}, {}, {}, {}
      for i = 1, #rows, 2 do
        local mark = string.byte(rows[i])
        if mark == 126 or mark == 33 then -- ~ or !
          marks[i], names[i] = mark, string.sub(rows[i], 2)
          if mark == 126 then
            flows[#flows + 1] = names[i]
          end
        else
          singles[#singles + 1] = rows[i]
        end
      end
      read_ahead(flows, singles)
      while at <= #rows do
        local score = rows[at + 1]
        if count >= limit or tries <= 0 then
          local back = {}
          for i = at, #rows, 2 do
            back[#back + 1], back[#back + 2] = rows[i + 1], rows[i]
            if marks[i] == 126 then
              put_back(names[i])
            end
          end
          redis.call('ZADD', gates.run, unpack(back))
          break
        end
        local mark = marks[at]
        if mark == 126 then
          serve_flow(names[at], score)
        elseif mark then
          serve_gate(names[at])
        else
          local id = rows[at]
          local verdict = unwanted and unwanted(id) or unfit(id)
          if not verdict then
            taken[2 * count + 1], taken[2 * count + 2], count = id, score, count + 1
          elseif verdict == 'later' or verdict == 'full' then
            keep(id, score, verdict)
          else
            gone[#gone + 1], tries = id, tries - 1
          end
        end
        at = at + 2
      end
    end
    if #kept > 0 then
      redis.call('ZADD', gates.run, unpack(kept))
    end
    return taken, gone
  end
end
