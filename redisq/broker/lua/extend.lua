--- extend: move the deadline of an explicit list of leases, only ever forwards. Safe to repeat.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] lease   integer  us from now until the lease ends
--- ARGV[3..] (id, fence)*   1000 at most
--- Returns: {(id, verdict)*}, only where there is something to say; verdict: lost, the lease is another's or nobody's, and
---   not extended; cancel, it is extended and somebody cancelled the message: stop it
--- @include queue
--- @include lease

local lease, count = duration(ARGV[2]), (#ARGV - 2) / 2
if not lease or lease == 0 or count ~= math.floor(count) or count > 1000 then
  return refuse('ARGUMENT', 'extend takes lease > 0 us and (id, fence)*, 1000 at most')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
if count == 0 then
  return {}
end
local ids = {}
for i = 1, count do
  ids[i] = ARGV[1 + 2 * i]
end
local leases = redis.call('HMGET', LEASES, unpack(ids))
--- has_slot: whether a message has a slot of some limit. In a group, another queue may have given that to one of its own as
--- the lease ran out.
local function has_slot(id)
  local raw = redis.call('HGET', PREFIX .. ':needs', id)
  return raw and string.find(raw, ' S', 1, true)
end

if queue.group then
  redis.call('HLEN', PREFIX .. ':needs')
end
first_write(queue)
if queue.set_back then
--- @include clock
  follow_clock(queue)
end
local verdicts, moved = {}, {}
for i, id in ipairs(ids) do
  local fence, _, taken_back = read_lease(leases[i])
  if fence == ARGV[2 + 2 * i] and not taken_back then
    local deadline = tonumber(redis.call('ZSCORE', PROCESSING, id) or nil)
    -- A deadline that is gone did not pass: no other queue took the slot for free.
    if queue.group and deadline and deadline <= queue.now and queue.now >= queue.grace and has_slot(id) then
      verdicts[#verdicts + 1], verdicts[#verdicts + 2] = id, 'lost'
    else
      moved[#moved + 1], moved[#moved + 2] = int(math.max(deadline or 0, queue.now + lease)), id
      if is_cancelled(leases[i]) then
        verdicts[#verdicts + 1], verdicts[#verdicts + 2] = id, 'cancel'
      end
    end
  else
    verdicts[#verdicts + 1], verdicts[#verdicts + 2] = id, 'lost'
  end
end
if #moved > 0 then
  -- Also where the deadline is gone: somebody deleted the key, or the server evicted it, while the holder is well.
  redis.call('ZADD', PROCESSING, unpack(moved))
end
close_queue(queue)
return verdicts
