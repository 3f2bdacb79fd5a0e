--- limits: the rules of gates. Rates: GCRA in its virtual scheduling form (ITU-T I.371, annex A): a gate's tat, its
--- theoretical arrival time, is when its bucket is full again. Rounded so that no grant is ever too many.
--- @include gates

-- A fence is the time of its claim, but for the ticks of a batch that came in the same moment, us.
local AHEAD = 1000

--- add_limits: gates.refusal, gates.grant, and what they look up.
local function add_limits(queue, gates)
  local classes, overridden = {}, nil
  local group = gates.group
  local shut, shut_for = {}, {} -- gate -> when it opens; for which cost, at least
  local due, due_count = {}, 0

  local function class_of(gate)
    return string.match(gate, '^[^:]+')
  end
  gates.class_of = class_of

  --- gates.limit_of: "count period burst" or "n": an operator's for the gate, for its class, or the code's; false: no limit.
  local function limit_of(gate, class)
    local limit = classes[class]
    if limit == nil then
      local found = redis.call('HMGET', gates.limits, '=' .. class, class, '=*')
      limit = found[1] or found[2]
      classes[class], overridden = limit, found[3]
    end
    if overridden and gate ~= class then
      return redis.call('HGET', gates.limits, '=' .. gate) or limit
    end
    return limit
  end
  gates.limit_of = limit_of

  --- gates.forget_limits: they are read again: one was written.
  function gates.forget_limits()
    classes = {}
  end

  --- gates.tat_of: us; of the past, or 0, when the bucket is full.
  local function tat_of(gate)
    local tat = gates.tats[gate]
    if not tat then
      tat = tonumber(redis.call('ZSCORE', gates.tat, gate) or 0)
      gates.tats[gate] = tat
    end
    return tat
  end
  gates.tat_of = tat_of

  --- gates.spacing: how much a grant moves the tat on, and how far it may be ahead; nil when the limit is no rate.
  local spacings = {}
  local function spacing(limit, cost)
    local rate = spacings[limit]
    if rate == nil then
      local count, period, burst = string.match(limit, '^(%d+) (%d+) (%d+)$')
      count, period, burst = tonumber(count), tonumber(period), tonumber(burst)
      rate = count and count > 0 and { count = count, period = period, tolerance = math.floor(burst * period / count) }
      spacings[limit] = rate
    end
    if not rate then
      return nil
    end
    local step = math.ceil(cost * rate.period / rate.count)
    -- What costs more than the burst wants a full bucket, and goes into debt.
    return step, math.max(rate.tolerance, step)
  end
  gates.spacing = spacing

  --- gates.clamp: what a gate has given out under another rule does not shut it for longer than its rule of now ever could.
  function gates.clamp(gate, limit)
    local _, tolerance = spacing(limit or '', 1)
    if tolerance and tat_of(gate) > queue.now + tolerance then
      gates.tats[gate], gates.tats_changed[gate] = queue.now + tolerance, true
    end
  end

  --- gates.convert: a gate's rule was changed: what it gave out is a debt of so many grants, under any rule.
  function gates.convert(gate, old, new, tat)
    local before, after = spacing(old or '', 1), spacing(new or '', 1)
    if before and after and tat > queue.now then
      gates.tats[gate], gates.tats_changed[gate] = math.ceil(queue.now + (tat - queue.now) / before * after), true
      gates.clamp(gate, new)
    end
  end

  --- gates.refusal: the gate that refuses a flow, and when it opens, us (0: when something is given back); nil: none does.
  --- via: the gate where it waited. What a grant would change is kept for gates.grant.
  function gates.refusal(descriptor, score, via)
    local refusing, opens, wanted, now = nil, -1, 0, queue.now
    due_count = 0
    if gates.some_paused and descriptor.kind ~= 'F' then
      local till = gates.paused_until(descriptor.flow, descriptor.flow)
      if till > now then
        refusing, opens = descriptor.flow, till
      end
    end
    local needs = needs_of(descriptor)
    for i = 1, #needs, 3 do
      local kind, gate, cost = needs[i], needs[i + 1], needs[i + 2]
      local known = shut[gate]
      if known and gate ~= via and cost >= shut_for[gate] then
        -- Found shut in this call: nobody behind who waits there needs to look further.
        return gate, known
      end
      local class = class_of(gate)
      local till = gates.some_paused and gates.paused_until(gate, class) or 0
      local at = nil
      if till > now then
        at = till
      elseif kind == 'R' then
        local limit = cost > 0 and limit_of(gate, class)
        if limit then
          local step, tolerance = spacing(limit, cost)
          if step then
            local tat = math.max(tat_of(gate), now) + step
            if tat - tolerance > now then
              at = tat - tolerance
            else
              due[due_count + 1], due[due_count + 2], due[due_count + 3] = kind, gate, tat
              due_count = due_count + 3
            end
          end
        end
      else
        local limit = tonumber(limit_of(gate, class) or nil)
        local used, back = limit and gates.slots_of(gate), 0
        if limit and group and used < limit then
          local elsewhere
          elsewhere, back = group.slots_of(gate)
          used = used + elsewhere
        end
        if limit and used >= limit then
          at = back
        end
        due[due_count + 1], due[due_count + 2] = kind, gate
        due_count = due_count + 3
      end
      if not at and gates.some_blocked and gate ~= via then
        -- No barging: else cheap calls keep a dear one waiting for ever.
        local first = on('ZRANGE', gates.waiting .. gate, 0, 0, 'WITHSCORES')
        if first[1] and first[1] ~= descriptor.flow and tonumber(first[2]) < score then
          at = 0
        end
      end
      if not at and group then
        at = group.gives_way(gate)
      end
      if at and at > opens then
        refusing, opens, wanted = gate, at, till > now and 0 or cost
      end
    end
    if opens > 0 then
      shut[refusing], shut_for[refusing] = opens, wanted
    end
    return refusing, opens
  end

  --- gates.give_back: a message that was leased at that time, us, did not begin: its rates get back what it took, less the
  --- time since, in which the bucket may have been filled up to the brim. So never more passes than without it.
  function gates.give_back(raw, leased_at)
    local past = queue.now - leased_at
    local needs = past + AHEAD >= 0 and needs_of(gates.parsed(raw)) or {}
    for i = 1, #needs, 3 do
      local gate, cost = needs[i + 1], needs[i + 2]
      local limit = needs[i] == 'R' and cost > 0 and limit_of(gate, class_of(gate))
      local back = (limit and spacing(limit, cost) or 0) - past - AHEAD
      local tat = back > 0 and tat_of(gate)
      if tat and tat > queue.now then
        gates.tats[gate], gates.tats_changed[gate] = tat - back, true
        gates.kick_all(gate)
      end
    end
  end

  --- gates.grant: who was not refused just now passes.
  function gates.grant()
    for i = 1, due_count, 3 do
      local gate = due[i + 1]
      if group then
        group.passed(gate)
      end
      if due[i] == 'R' then
        gates.tats[gate], gates.tats_changed[gate] = due[i + 2], true
      else
        gates.take_slot(gate)
      end
    end
  end
end
