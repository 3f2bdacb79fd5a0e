--- bind: enter routes of an exchange, or prolong them; never shorten one. Safe to repeat.
---
--- KEYS: the exchange's fixed keys, in the order of include/exchange.lua
--- ARGV[1] prefix  string   {x}
--- ARGV[2..] (route, keep)*
---   route  bytes    opaque: what the exchange is, or one of its bindings
---   keep   integer  us that it lasts from now; 0: for good
--- Returns: 1
--- @include exchange
--- @include now
--- @include int
--- @include refuse

local count = (#ARGV - 1) / 2
if count < 1 or count ~= math.floor(count) or count > 1000 then
  return refuse('ARGUMENT', 'bind takes (route, keep)*, 1 to 1000')
end
local now, entries = now_us(), {}
for i = 1, count do
  local route, keep = ARGV[2 * i], duration(ARGV[1 + 2 * i])
  if not keep then
    return refuse('ARGUMENT', 'keep of a route: want us >= 0')
  end
  local till = keep == 0 and FOR_GOOD or now + keep
  entries[2 * i - 1], entries[2 * i] = int(math.max(till, tonumber(redis.call('ZSCORE', ROUTES, route)) or 0)), route
end
redis.call('ZREMRANGEBYSCORE', ROUTES, '-inf', int(now))
redis.call('ZADD', ROUTES, unpack(entries))
-- An exchange whose routes all end leaves no key behind.
local last = tonumber(redis.call('ZRANGE', ROUTES, -1, -1, 'WITHSCORES')[2])
if last >= FOR_GOOD then
  redis.call('PERSIST', ROUTES)
else
  redis.call('PEXPIREAT', ROUTES, int(math.ceil(last / 1000)))
end
return 1
