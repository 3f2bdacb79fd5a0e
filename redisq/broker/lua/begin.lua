--- begin: note which deliveries begin now, and which wait for a thread or process. Those that wait are not charged with the
--- death of their worker. Safe to repeat, and in any order: what began waits no more.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] wait    integer  so many pairs (id, fence) follow of those that wait
--- ARGV[3..] (id, fence)*wait, then (id, fence)*: their handlers are called when this was answered; 1000 at most
--- Returns: {(id, verdict)*}, only where there is something to say; verdict: lost, the lease is another's or nobody's;
---   cancel, somebody cancelled the message. Neither is to begin
--- @include queue
--- @include lease

local wait, count = natural(ARGV[2]), (#ARGV - 2) / 2
if not wait or count ~= math.floor(count) or wait > count or count > 1000 then
  return refuse('ARGUMENT', 'begin takes wait, (id, fence)*wait, (id, fence)*, 1000 at most')
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
first_write(queue)
local verdicts, noted = {}, {}
for i, id in ipairs(ids) do
  local raw = leases[i]
  local fence, _, taken_back = read_lease(raw)
  if fence ~= ARGV[2 + 2 * i] or taken_back then
    verdicts[#verdicts + 1], verdicts[#verdicts + 2] = id, 'lost'
  elseif is_cancelled(raw) then
    verdicts[#verdicts + 1], verdicts[#verdicts + 2] = id, 'cancel'
  else
    local record
    if i <= wait then
      record = kept_waiting(raw)
    else
      record = begun(raw)
    end
    if record then
      noted[#noted + 1], noted[#noted + 2] = id, record
    end
  end
end
if #noted > 0 then
  redis.call('HSET', LEASES, unpack(noted))
end
close_queue(queue)
return verdicts
