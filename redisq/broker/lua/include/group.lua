--- group: limits that several queues share. The group has their rules, their pauses and what rates have given out; each
--- queue has its own messages, its own lanes, who waits, and the slots that its leases hold. Field group of a queue's config
--- is the prefix of its group's keys: queues: who is in it, with the time of the last claim that got less than it asked for;
--- turns: which queue last passed a gate that another waits for; clock: the last time that one of them saw, about.
--- @include queue

-- A queue is hungry for so many us after a claim that got less than it asked for; the others give way to it for so many.
local HUNGRY, GIVE_WAY = 2000000, 5000

-- How long turns are remembered, us.
local TURNS = 60000000

-- A group's clock is written when it is so many us behind the time: it tells only whether that was set back.
local TOO_OLD = 500000

-- Leases that ran out in another queue and are discounted here, at most, until a claim there takes them back.
local OVERDUE = 100

--- keep_while_told: a sorted set whose scores are times goes a minute after the last of them.
local function keep_while_told(key, now)
  local last = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or now)
  if last == math.huge then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, int(math.ceil(math.max(last - now, 0) / 1000) + 60000))
  end
end

--- check_group: ends the script before its first write when one of a group's keys is of another type.
local function check_group(group)
  for _, name in ipairs({ ':tat', ':pauses', ':queues', ':turns' }) do
    redis.call('ZCARD', group .. name)
  end
  redis.call('HLEN', group .. ':limits')
  redis.call('GET', group .. ':clock')
end

--- join_group: the queue's limits are that group's from now on, or its own (''). What rates gave out, pauses and rules come
--- along; of two rules, that of the place where it comes to stays.
local function join_group(queue, group)
  local from, to = queue.group or PREFIX, group ~= '' and group or PREFIX
  if from == to then
    return
  end
  for _, name in ipairs({ ':tat', ':pauses' }) do
    if redis.call('EXISTS', from .. name) == 1 then
      redis.call('ZUNIONSTORE', to .. name, 2, to .. name, from .. name, 'AGGREGATE', 'MAX')
      keep_while_told(to .. name, queue.now)
    end
  end
  local rules = redis.call('HGETALL', from .. ':limits')
  for i = 1, #rules, 2 do
    redis.call('HSETNX', to .. ':limits', rules[i], rules[i + 1])
  end
  if from == PREFIX then
    redis.call('UNLINK', PREFIX .. ':tat', PREFIX .. ':pauses', PREFIX .. ':limits')
  else
    redis.call('ZREM', from .. ':queues', PREFIX)
  end
  if to == PREFIX then
    redis.call('HDEL', CONFIG, 'group')
    queue.group = nil
  else
    redis.call('ZADD', to .. ':queues', 'NX', 0, PREFIX)
    redis.call('HSET', CONFIG, 'group', to)
    queue.group = to
  end
end

--- add_group: what the other queues of the group have to do with this call. Reads only.
local function add_group(queue, gates)
  local group, others, hungry = {}, {}, {}
  local queues, turns, clock = queue.group .. ':queues', queue.group .. ':turns', queue.group .. ':clock'
  local last = tonumber(redis.call('GET', clock) or 0) or 0
  gates.set_back = last - queue.now > SET_BACK and last - queue.now or nil
  local rows = redis.call('ZRANGE', queues, 0, -1, 'WITHSCORES')
  for i = 1, #rows, 2 do
    if rows[i] ~= PREFIX then
      others[#others + 1] = rows[i]
      will_touch(queue, rows[i] .. ':never')
      local at = tonumber(rows[i + 1])
      -- A time that is still to come is from before the clock was set back.
      hungry[rows[i]] = at > queue.now - HUNGRY and at <= queue.now + SET_BACK
    end
  end
  redis.call('ZCARD', turns)
  local rivals, took, elsewhere, types = {}, {}, {}, {}

  --- is_of: whether a key of another queue is of that type, or does not exist. One that is not is an error of the calls on that
  --- queue, which say so; those on this queue go on.
  local function is_of(key, type_)
    local found = types[key]
    if not found then
      found = redis.call('TYPE', key).ok
      types[key] = found
    end
    return found == type_ or found == 'none'
  end

  --- group.slots_of: slots of a gate that the other queues' leases hold, and when the first of these leases ends, us.
  function group.slots_of(gate)
    local known = elsewhere[gate]
    if known then
      return known[1], known[2]
    end
    local count, back = 0, 0
    for _, other in ipairs(others) do
      local leased, now = other .. ':queue:processing', int(queue.now)
      local known = is_of(other .. ':slots', 'hash')
      local held = known and tonumber(redis.call('HGET', other .. ':slots', gate) or 0) or 0
      if not known or held > 0 and not (is_of(leased, 'zset') and is_of(other .. ':needs', 'hash')) then
        -- Nobody knows how many slots are in use: as good as all of them.
        count, back = math.huge, queue.now + HUNGRY
        break
      end
      if held > 0 and queue.now >= queue.grace then
        local over = redis.call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, OVERDUE)
        for _, raw in ipairs(#over > 0 and redis.call('HMGET', other .. ':needs', unpack(over)) or {}) do
          if raw and string.find(raw, ' S' .. gate .. ',', 1, true) then
            held = held - 1
          end
        end
      end
      if held > 0 then
        count = count + held
        local first = redis.call('ZRANGEBYSCORE', leased, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
        local ends = math.max(tonumber(first or 0) or 0, queue.grace, queue.now + GIVE_WAY)
        back = back == 0 and ends or math.min(back, ends)
      end
    end
    elsewhere[gate] = { count, back }
    return count, back
  end

  --- group.kick: a gate is looked at again by the other queues that wait there.
  function group.kick(gate)
    for _, other in ipairs(others) do
      local waiting, gates_, run, wake = other .. ':waiting:' .. gate, other .. ':gates', other .. ':run', other .. ':wake'
      if redis.call('TYPE', waiting).ok == 'zset' and is_of(gates_, 'zset') and is_of(run, 'zset') and is_of(wake, 'zset') then
        redis.call('ZREM', gates_, gate)
        redis.call('ZADD', run, redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2], '!' .. gate)
        redis.call('ZADD', wake, 0, '1')
      end
    end
  end

  local function turn_of(gate, name)
    local at = tonumber(redis.call('ZSCORE', turns, gate .. ' ' .. name) or 0)
    return at <= queue.now + SET_BACK and at or 0
  end

  --- group.gives_way: until when, us, this queue lets another pass first: one that waits there, whose workers have nothing
  --- else to do, and whose last turn is longer ago; nil: it need not. So queues that share a limit take turns.
  function group.gives_way(gate)
    local found = rivals[gate]
    if not found then
      found = {}
      for _, other in ipairs(others) do
        if hungry[other] and redis.call('EXISTS', other .. ':waiting:' .. gate) == 1 then
          found[#found + 1] = turn_of(gate, other)
        end
      end
      found.own = #found > 0 and turn_of(gate, PREFIX) or 0
      rivals[gate] = found
    end
    for _, turn in ipairs(found) do
      if turn < found.own then
        return queue.now + GIVE_WAY
      end
    end
    return nil
  end

  --- group.passed: a message passed a gate.
  function group.passed(gate)
    local found = rivals[gate]
    if found and #found > 0 then
      found.own, took[gate] = queue.now, true
    end
  end

  --- group.asked: a claim got so many messages of those that it wanted.
  function group.asked(wanted, got)
    if got < wanted then
      redis.call('ZADD', queues, int(queue.now), PREFIX)
    end
  end

  --- group.close: write whose turn it was, and the clock.
  function group.close()
    if not gates.set_back and (queue.now - last > TOO_OLD or last > queue.now) then
      redis.call('SET', clock, int(queue.now))
    end
    local set = {}
    for gate in pairs(took) do
      set[#set + 1], set[#set + 2] = int(queue.now), gate .. ' ' .. PREFIX
    end
    if #set > 0 then
      redis.call('ZREMRANGEBYSCORE', turns, '-inf', int(queue.now - TURNS))
      redis.call('ZADD', turns, unpack(set))
      redis.call('PEXPIRE', turns, int(TURNS / 1000))
    end
  end

  group.others, group.is_of = others, is_of
  gates.group = group
end
