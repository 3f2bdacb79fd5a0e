--- routes: what an exchange is and what is bound to it, now. Reads only.
---
--- KEYS: the exchange's fixed keys, in the order of include/exchange.lua
--- ARGV[1] prefix  string  {x}
--- Returns: list of the routes that have not ended
--- @include exchange
--- @include now
--- @include int

return redis.call('ZRANGEBYSCORE', ROUTES, int(now_us()), '+inf')
