--- cancel: mark messages that run as not wanted any more. Their workers hear it with their next `extend`.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}: keys of one caller are built from it
--- ARGV[2] caller  string   who calls
--- ARGV[3] number  integer  the caller's number of this call
--- ARGV[4..] id*   string   1000 at most
--- Returns: list of the ids that are marked: under a living lease. None of them runs again: whatever else its run ends
---   with, but for a success or a dead letter, and when its lease expires, it goes
--- @include queue
--- @include ledger
--- @include lease

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
if #ARGV > 1003 then
  return refuse('ARGUMENT', 'cancel takes 1000 ids at most')
end
local queue
queue, refused = open_queue()
if not queue then
  return refused
end
first_write(queue)
local marked = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local raw = redis.call('HGET', LEASES, id)
  local fence, _, taken_back = read_lease(raw)
  if fence and not taken_back then
    if not is_cancelled(raw) then
      redis.call('HSET', LEASES, id, raw .. ' cancel')
    end
    marked[#marked + 1] = id
  end
end
close_queue(queue)
remember(caller, number, marked, queue)
return marked
