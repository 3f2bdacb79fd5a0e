--- unbind: take routes out of an exchange. Safe to repeat.
---
--- KEYS: the exchange's fixed keys, in the order of include/exchange.lua
--- ARGV[1] prefix  string  {x}
--- ARGV[2..] route*  bytes  1 to 1000
--- Returns: 1
--- @include exchange
--- @include refuse

if #ARGV < 2 or #ARGV > 1001 then
  return refuse('ARGUMENT', 'unbind takes 1 to 1000 routes')
end
for i = 2, #ARGV do
  redis.call('ZREM', ROUTES, ARGV[i])
end
return 1
