--- now: the server's clock, the only clock that scripts know. Microseconds since the epoch.
--- A test build replaces this file alone, to move the time by hand (redisq.broker.scripts.Scripts).
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
