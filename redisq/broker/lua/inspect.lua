--- inspect: the lengths, the next event and the counters of a queue. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- Returns: {now, waiting, delayed, retry, processing, dead, bodies, oldest, overdue, overdue_since, expired, expired_since,
---   paused, bodiless, (counter, value)*}; now: us; bodies: how many messages have one, more than are in the states when a state's key
---   was lost; oldest: since when the oldest in main waits, us: it was accepted or due then; overdue: messages in delayed and
---   retry that are due, and since when the first is; expired: leases that ended, and since when the first has; '' for none;
---   paused: '1' or '0'; bodiless: the least number of messages without a body; running ones and dead letters with reason body_missing do not count
--- @include queue
--- @include head
--- @include meta

-- Messages of main that are looked at one by one, and places further on that are.
local LOOKED, HOPS = 1000, 256

local queue, refused = open_queue()
if not queue then
  return refused
end

--- oldest: since when the oldest message in main waits. Its place is that time less its head start, so it need not be the
--- first. It is found for certain among the first thousand. Of those behind them only some are looked at: the first of
--- each priority, where the head starts are so great that priorities lie apart.
local function oldest()
  local now, best = math.max(queue.now, queue.clock), math.huge

  local stands_back = #redis.call('ZRANGEBYSCORE', MAIN, '(' .. int(now), '+inf', 'LIMIT', 0, 1) > 0
  local at, size, last, head = 0, 1, nil, 0
  while at < LOOKED do
    local rows = redis.call('ZRANGE', MAIN, at, at + size - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      last, head = tonumber(rows[i + 1]), head_of(rows[i])
      -- What comes behind waits no longer than its place says, unless it stands back.
      if last >= best and not stands_back then
        return best
      end
      best = math.min(best, last + head, now)
    end
    if #rows < 2 * size then
      return best
    end
    at = at + size
    size = math.min(9 * size, LOOKED - at)
  end
  for _ = 1, HOPS do
    -- All of the last one's priority have places up to here.
    last = math.max(last, now - head)
    local row = redis.call('ZRANGEBYSCORE', MAIN, '(' .. int(last), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not row[1] then
      break
    end
    last, head = tonumber(row[2]), head_of(row[1])
    best = math.min(best, last + head, now)
  end
  return best
end

--- bodiless: messages without a body. Of those that run, which their workers may finish, and of dead letters, which may say
--- so, only the newest are looked at; the others count as such.
local function bodiless()
  local count = queue.main + queue.delayed + queue.retry + queue.processing + queue.dead - queue.bodies
  if count <= 0 then
    return 0
  end
  for _, id in ipairs(redis.call('ZRANGE', PROCESSING, -LOOKED, -1)) do
    count = count - 1 + redis.call('HEXISTS', MESSAGES, id)
  end
  local ids = redis.call('ZRANGE', DLQ, -LOOKED, -1)
  local metas = metas_of(queue, ids)
  for i, id in ipairs(ids) do
    if metas[i] and redis.call('HEXISTS', MESSAGES, id) == 0 and read_meta(metas[i]).reason == 'body_missing' then
      count = count - 1
    end
  end
  return math.max(0, count - math.max(0, queue.processing - LOOKED) - math.max(0, queue.dead - LOOKED))
end

--- past: how many scores of a sorted set are past, and the first of them; 0 and nil for none.
local function past(key)
  local count = redis.call('ZCOUNT', key, '-inf', int(queue.now))
  return count, count > 0 and tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or nil
end

--- since: a time as text, '' for none.
local function since(time)
  return time and int(math.max(time, -9007199254740992)) or ''
end

local delayed, first_delayed = past(DELAYED)
local retries, first_retry = past(RETRY)
local expired, first_expired = past(PROCESSING)
local first_due = first_delayed and first_retry and math.min(first_delayed, first_retry) or first_delayed or first_retry
local reply = {
  int(queue.now), int(queue.main), int(queue.delayed), int(queue.retry), int(queue.processing), int(queue.dead), int(queue.bodies),
  queue.main > 0 and since(oldest()) or '', int(delayed + retries), since(first_due), int(expired), since(first_expired),
  queue.paused and '1' or '0', int(bodiless()),
}
for _, value in ipairs(redis.call('HGETALL', STATS)) do
  reply[#reply + 1] = value
end
return reply
