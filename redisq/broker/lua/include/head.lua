--- head: the head start of a message's priority, which its id tells: "{id}p540": 540 s ahead; "m540": it stands back so much;
--- "p5u": 5 us. An id of another form tells none.

--- head_of: the head start that an id tells, us; see with_head_start in redisq/message.py.
local function head_of(id)
  local sign, number, unit = string.match(string.sub(id, 17), '^([pm])(%d+)(u?)$')
  if not sign or not string.find(id, '^%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w') then
    return 0
  end
  return (sign == 'p' and 1 or -1) * tonumber(number) * (unit == 'u' and 1 or 1000000)
end
