--- outcome: how one job stands, for who waits for it. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}: the result's key is built from it
--- ARGV[2] id      string
--- Returns: {'done', result}; {'dead', meta}; {'gone'}: the queue has neither the message nor a result; else {'open'}
--- @include queue

if #ARGV ~= 2 then
  return refuse('ARGUMENT', 'outcome takes an id')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local id = ARGV[2]
local result = redis.call('GET', PREFIX .. ':result:' .. id)
if result then
  return { 'done', result }
end
if redis.call('ZSCORE', DLQ, id) then
  return { 'dead', redis.call('HGET', META, id) or '' }
end
if redis.call('HEXISTS', MESSAGES, id) == 1 then
  return { 'open' }
end
return { 'gone' }
