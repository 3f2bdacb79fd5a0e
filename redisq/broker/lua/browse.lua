--- browse: a page of the messages of one state. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string   {p}
--- ARGV[2] state   string   waiting, delayed, retry, processing or dead
--- ARGV[3] offset  integer  from 0
--- ARGV[4] limit   integer  1 to 1000
--- Returns: {(id, score, body, meta)*} in order; score: see the key's page, us; meta: see include/meta.lua
--- @include queue
--- @include meta
--- @include states

local state, offset, limit = ARGV[2], natural(ARGV[3]), natural(ARGV[4])
local zset = ZSETS[state] or (state == 'processing' and PROCESSING)
if not zset or not offset or not limit or limit < 1 or limit > 1000 then
  return refuse('ARGUMENT', 'browse takes a state, an offset, a limit of 1 to 1000')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local rows, ids, reply = redis.call('ZRANGE', zset, offset, offset + limit - 1, 'WITHSCORES'), {}, {}
for i = 1, #rows, 2 do
  ids[#ids + 1] = rows[i]
end
if #ids == 0 then
  return reply
end
local bodies, metas = redis.call('HMGET', MESSAGES, unpack(ids)), metas_of(queue, ids)
for i, id in ipairs(ids) do
  local size = #reply
  reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4] = id, rows[2 * i], bodies[i] or '', metas[i] or ''
end
return reply
