--- routes: what an exchange is and what is bound to it, now. Reads only.
---
--- KEYS: the exchange's fixed keys, in the order of include/exchange.lua
--- ARGV[1] prefix  string  {x}
--- Returns: (route, keep)* of those that have not ended; keep: us that it still lasts; 0: for good
--- @include exchange
--- @include now
--- @include int

local now = now_us()
local entries = redis.call('ZRANGEBYSCORE', ROUTES, int(now), '+inf', 'WITHSCORES')
for i = 2, #entries, 2 do
  local till = tonumber(entries[i])
  entries[i] = till >= FOR_GOOD and 0 or math.max(till - now, 1)
end
return entries
