--- refuse: an answer that is an error. CODE is a word that redisq.broker.faults knows.
local function refuse(code, text)
  return redis.error_reply('REDISQ_' .. code .. ' ' .. text)
end

--- natural: the whole number >= 0 that an argument holds, or nil.
local function natural(text)
  local number = tonumber(text)
  if number and number >= 0 and number < 9007199254740992 and number == math.floor(number) then
    return number
  end
  return nil
end

--- duration: us from now, or nil; 2^52 at most (142 years), so that a score holds the time then exactly.
local function duration(text)
  local number = natural(text)
  return number and number <= 4503599627370496 and number or nil
end
