--- int: a whole number as text. Lua's own tostring gives 14 digits, and a tick has 16.
local function int(number)
  return string.format('%.0f', number)
end
