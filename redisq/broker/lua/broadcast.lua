--- broadcast: append a message to the stream of a fanout exchange. Bounded in length and in age.
---
--- KEYS: the exchange's fixed keys, in the order of include/exchange.lua
--- ARGV[1] prefix  string   {x}: keys of one caller are built from it
--- ARGV[2] caller  string   who calls
--- ARGV[3] number  integer  the caller's number of this call
--- ARGV[4] length  integer  keep about so many messages, 1 or more
--- ARGV[5] age     integer  us that a message is kept; the stream goes when nothing came for so long
--- ARGV[6] body    bytes    opaque
--- Returns: {id}: the message's place in the stream
--- @include exchange
--- @include ledger
--- @include now

-- Old messages that one call deletes at most.
local SWEEP = 100

local caller, number = ARGV[2], natural(ARGV[3])
local answered, refused = recall(caller, number)
if answered or refused then
  return answered or refused
end
local length, age = natural(ARGV[4]), duration(ARGV[5])
if #ARGV ~= 6 or not length or length == 0 or not age or age < 1000 then
  return refuse('ARGUMENT', 'broadcast takes length >= 1, age >= 1000 us, body')
end
local old = redis.call('XRANGE', STREAM, '-', int(math.floor((now_us() - age) / 1000)), 'COUNT', SWEEP)
local id = redis.call('XADD', STREAM, 'MAXLEN', '~', int(length), '*', 'm', ARGV[6])
for _, entry in ipairs(old) do
  redis.call('XDEL', STREAM, entry[1])
end
redis.call('PEXPIRE', STREAM, int(math.floor(age / 1000)))
remember(caller, number, { id })
return { id }
