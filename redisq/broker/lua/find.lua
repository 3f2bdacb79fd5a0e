--- find: where one message is and what is known of it. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- ARGV[2] id      string
--- Returns: {} when the queue has no such message, else {state, score, position, body, meta, lease}; state: waiting, delayed,
---   retry, processing or dead; score: see the key's page, us; position: from 1 in its zset; meta: see include/meta.lua;
---   lease: see include/lease.lua, '' when there is none
--- @include queue

if #ARGV ~= 2 then
  return refuse('ARGUMENT', 'find takes an id')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local id = ARGV[2]
local places = { { 'waiting', MAIN }, { 'delayed', DELAYED }, { 'retry', RETRY }, { 'processing', PROCESSING }, { 'dead', DLQ } }
for _, place in ipairs(places) do
  local rank = redis.call('ZRANK', place[2], id)
  if rank then
    return {
      place[1], redis.call('ZSCORE', place[2], id), int(rank + 1), redis.call('HGET', MESSAGES, id) or '',
      redis.call('HGET', META, id) or '', redis.call('HGET', LEASES, id) or '',
    }
  end
end
return {}
