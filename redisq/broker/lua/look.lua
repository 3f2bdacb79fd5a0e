--- look: when each of several queues has something to do for a claim. Reads only; a queue that it cannot read is due at once.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}: the first queue
--- ARGV[2] step    integer  us that a step of priority is worth; 0: nobody asks for priorities
--- ARGV[3..] prefix of another queue, each
--- Returns: list of text, one for each queue: '' when it has nothing to do, else "due" or, with a step, "due band count"
---   due    us until a claim has something to do; 0 for at once
---   band   the priority of its first message, to the nearest step behind a message of now without priority; "-" when no
---          message waits, or a claim has to move others to it first, which are due or whose leases ended
---   count  how many waiting messages are in this band or before it
--- @include now
--- @include keys
--- @include int
--- @include refuse

-- A time that a queue saw and that is so many us ahead is from before the server's clock was set back: a claim sees to it.
local AHEAD = 1000000

local step = duration(ARGV[2])
if not step then
  return refuse('ARGUMENT', 'look takes step, and the prefixes of more queues')
end
local now = now_us()

--- first: the score of the first member of a sorted set, or nil.
local function first(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
end

--- number: what a field holds, 0 when it is missing. An error ends `due_of`, and the queue is due.
local function number(text)
  return natural(text or 0) or error('not a number')
end

--- due_of: when a queue has something to do, or nil; and the score of its first waiting message, if that can be told.
local function due_of(prefix)
  local config = redis.call('HMGET', prefix .. ':config', 'layout', 'paused', 'grace_until', 'lease', 'rules', 'seen')
  if config[1] ~= '1' then
    -- New, or its data is gone: a claim makes it, or says what is wrong.
    return now
  end
  local soonest = nil
  local function at(time)
    if time and (not soonest or time < soonest) then
      soonest = time
    end
  end
  local queue, waiting, deadline, retry = prefix .. ':queue:', nil, nil, nil
  if redis.call('EXISTS', queue .. 'main', queue .. 'delayed', queue .. 'retry', queue .. 'processing') > 0 then
    at(first(queue .. 'delayed'))
    retry = first(queue .. 'retry')
    at(retry)
    deadline = first(queue .. 'processing')
    at(deadline and math.max(deadline, number(config[3])))
    waiting = config[2] ~= '1' and first(queue .. 'main') or nil
  end
  if waiting then
    -- Those that are due may go before it.
    local is_known = not soonest or soonest > now
    return now, is_known and waiting or nil
  end
  -- Every claim puts off the end of a queue that goes when nobody uses it.
  local ttl = number(config[5] and (string.match(' ' .. config[5], ' ttl=(%d+)') or ''))
  if ttl > 0 then
    at(now + (redis.call('PTTL', prefix .. ':config') - ttl / 2) * 1000)
  end
  if deadline or retry then
    -- Until a claim has moved them, these are as far ahead as the clock was set back by: see include/clock.lua.
    local last = tonumber(string.match(config[6] or '', '^%d+') or nil) or number(redis.call('GET', prefix .. ':clock'))
    if last > now + AHEAD then
      at(now)
    elseif deadline then
      -- A queue that nobody called for half a lease gives all leases another one: see include/queue.lua. Holders that live move it
      -- every third of a lease.
      at(last + 0.35 * number(config[4]))
    end
  end
  return soonest
end

local reply = {}
for i = 1, #ARGV - 1 do
  local prefix = i == 1 and PREFIX or ARGV[i + 1]
  local is_read, due, waiting = pcall(due_of, prefix)
  if not is_read then
    due, waiting = now, nil
  end
  local text = due and int(math.max(due - now, 0)) or ''
  if due and step > 0 then
    local band = waiting and math.floor((waiting - now) / step + 0.5)
    local count = band and redis.call('ZCOUNT', prefix .. ':queue:main', '-inf', int(now + (band + 0.5) * step))
    text = text .. ' ' .. (band and int(band) or '-') .. ' ' .. int(count or 0)
  end
  reply[i] = text
end
return reply
