--- find: where one message is and what is known of it. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- ARGV[2] id      string
--- Returns: {} when the queue has no such message, else {state, score, position, body, meta, lease}; state: waiting, delayed,
---   retry, processing or dead; score: see the key's page, us; position: from 1 in its zset, but for a message that waits in a
---   lane: from 1 among what is to start; meta: see include/meta.lua; lease: see include/lease.lua, '' when there is none
--- @include queue

if #ARGV ~= 2 then
  return refuse('ARGUMENT', 'find takes an id')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local id = ARGV[2]

--- started_before: how many messages start before one that waits in a lane: those with an earlier ticket, and those before
--- it in its lane. Other lanes take their turns in between, so it may be more. nil: it waits in no lane.
local function started_before()
--- @include descriptor
  local raw = redis.call('HGET', PREFIX .. ':needs', id)
  local descriptor = raw and read_descriptor(raw)
  if not descriptor or descriptor.kind == 'F' then
    return nil
  end
  local flow, run = descriptor.flow, PREFIX .. ':run'
  local holder, in_lane = redis.call('HGET', PREFIX .. ':lanes', flow), 0
  if holder ~= id then
    in_lane = redis.call('ZRANK', PREFIX .. ':flow:' .. flow, id)
    if not in_lane then
      return nil
    end
    if holder and not redis.call('ZSCORE', PROCESSING, holder) then
      -- It waits for its next attempt, and starts before all others of its lane.
      in_lane = in_lane + 1
    end
  end
  local ticket = redis.call('ZRANK', run, '~' .. flow)
  local gate = not ticket and redis.call('HGET', PREFIX .. ':blocked', flow)
  local waiting = gate and PREFIX .. ':waiting:' .. gate
  local place = waiting and redis.call('ZSCORE', waiting, flow)
  if place then
    local behind = redis.call('ZRANGEBYSCORE', run, place, '+inf', 'LIMIT', 0, 1)[1]
    ticket = (behind and redis.call('ZRANK', run, behind) or redis.call('ZCARD', run)) + redis.call('ZRANK', waiting, flow)
  end
  -- While one of the lane runs there is no ticket: the next one comes behind all that wait now.
  return (ticket or redis.call('ZCARD', run)) + in_lane
end

local places = { { 'waiting', MAIN }, { 'delayed', DELAYED }, { 'retry', RETRY }, { 'processing', PROCESSING }, { 'dead', DLQ } }
for _, place in ipairs(places) do
  local rank = redis.call('ZRANK', place[2], id)
  if rank then
    local before = queue.gated and place[1] == 'waiting' and started_before() or rank
    return {
      place[1], redis.call('ZSCORE', place[2], id), int(before + 1), redis.call('HGET', MESSAGES, id) or '',
      redis.call('HGET', META, id) or '', redis.call('HGET', LEASES, id) or '',
    }
  end
end
return {}
