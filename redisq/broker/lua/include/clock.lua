--- clock: the server's clock was set back, or a replica whose clock is behind took over. All that is counted from the time of
--- a call moves back by as much: lease deadlines, grace, retries, pauses, what rates gave out, openings of gates. So what was
--- left of each is left now. Delayed messages stay: their senders named a time. In a group, the first of its queues that sees it
--- moves the times of all. Called as soon as all checks have passed, before any other time is written.
---
--- Field seen of config: the last time that the queue saw, "us" or "us back moved", while its clock is ahead of the time. With
--- the two last words, no claim has said yet that the clock was set back by so many us, and that so many times were moved.
--- @include queue
--- @include int
--- @include refuse

--- later_times: {key, (score, member)*} of what a sorted set has for later than now, each moved back.
local function later_times(key, now, back)
  local rows, moved = redis.call('ZRANGEBYSCORE', key, '(' .. int(now), '+inf', 'WITHSCORES'), { key = key }
  for i = 1, #rows, 2 do
    local at = tonumber(rows[i + 1])
    if at < math.huge then
      moved[#moved + 1], moved[#moved + 2] = int(at - back), rows[i]
    end
  end
  return moved
end

--- behind: by how many us the clock was set back since the last time that another queue of the group saw, or nil.
local function behind(other, now, is_of)
  for name, type_ in pairs({ clock = 'string', config = 'hash', stats = 'hash', gates = 'zset', ['queue:processing'] = 'zset', ['queue:retry'] = 'zset' }) do
    if not is_of(other .. ':' .. name, type_) then
      return nil -- the calls on that queue say so
    end
  end
  local seen = string.match(redis.call('HGET', other .. ':config', 'seen') or '', '^%d+')
  local last = tonumber(seen or redis.call('GET', other .. ':clock') or 0) or 0
  return last - now > SET_BACK and last - now or nil
end

--- follow_clock: move the queue's times, and its group's when they were not moved yet, with those of all its queues: nobody may
--- look after some of them, and what they hold would be held for longer. gates: nil when they are not open.
local function follow_clock(queue, gates)
  local now, back, shared = queue.now, queue.set_back, gates and gates.set_back
  local queues, sets = {}, {}
  if back then
    queues[1] = { prefix = PREFIX, back = back }
  end
  if shared then
    for _, other in ipairs(gates.group.others) do
      local by = behind(other, now, gates.group.is_of)
      if by then
        queues[#queues + 1] = { prefix = other, back = by }
      end
    end
  end
  for _, each in ipairs(queues) do
    for _, name in ipairs({ ':queue:processing', ':queue:retry', ':gates' }) do
      each[#each + 1] = later_times(each.prefix .. name, now, each.back)
    end
    sets[#sets + 1] = each
  end
  local owner, by = queue.group or PREFIX, shared or not queue.group and back
  if by then
    sets[#sets + 1] = { later_times(owner .. ':tat', now, by), later_times(owner .. ':pauses', now, by) }
  end
  for _, set in ipairs(sets) do
    set.count = 0
    for _, moved in ipairs(set) do
      for i = 1, #moved, 2000 do
        redis.call('ZADD', moved.key, unpack(moved, i, math.min(i + 1999, #moved)))
      end
      set.count = set.count + #moved / 2
    end
  end
  for _, each in ipairs(queues) do
    local stats, config, count = each.prefix .. ':stats', each.prefix .. ':config', each.count
    redis.call('HSET', stats, 'clock_set_back', int((natural(redis.call('HGET', stats, 'clock_set_back') or 0) or 0) + 1))
    if each.prefix == PREFIX then
      count = count + (by and sets[#sets].count or 0)
      queue.unsaid = int(each.back) .. ' ' .. int(count)
      if queue.grace > now then
        queue.grace = queue.grace - each.back
        redis.call('HSET', config, 'grace_until', int(queue.grace))
      end
    else
      local grace = natural(redis.call('HGET', config, 'grace_until') or 0) or 0
      if grace > now then
        redis.call('HSET', config, 'grace_until', int(grace - each.back))
      end
      redis.call('HSET', config, 'seen', int(now) .. ' ' .. int(each.back) .. ' ' .. int(count))
    end
  end
  queue.set_back = nil
  if gates then
    gates.set_back = nil
  end
end
