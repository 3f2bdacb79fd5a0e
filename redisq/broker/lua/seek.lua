--- seek: a page of the messages whose bytes hold a text. For operators. Reads only.
---
--- KEYS: the queue's fixed keys, in the order of include/keys.lua
--- ARGV[1] prefix  string  {p}
--- ARGV[2] cursor  string  0 to begin, else that of the last page
--- ARGV[3] text    bytes   what to look for
--- Returns: {cursor, id*}; cursor 0: it was the last page
--- @include queue

-- Messages of one page, about: it reads the bytes of all of them.
local PAGE = 200

if #ARGV ~= 3 or not string.find(ARGV[2], '^%d+$') or ARGV[3] == '' then
  return refuse('ARGUMENT', 'seek takes a cursor and a text')
end
local queue, refused = open_queue()
if not queue then
  return refused
end
local page = redis.call('HSCAN', MESSAGES, ARGV[2], 'COUNT', PAGE)
local reply = { page[1] }
for i = 1, #page[2], 2 do
  if string.find(page[2][i + 1], ARGV[3], 1, true) then
    reply[#reply + 1] = page[2][i]
  end
end
return reply
