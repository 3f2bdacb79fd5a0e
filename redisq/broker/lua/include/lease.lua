--- lease: the record of a delivery, "fence score worker": the fence, the message's place in main, the holder.
--- A record marked "x" was taken back after its deadline: nobody holds the message, but its last holder may still ack.
--- One that ends in " cancel", as a fourth word, is of a message that is not wanted any more: it does not run again.

--- read_lease: fence, score, whether taken back; nil when there is no record.
local function read_lease(raw)
  if not raw then
    return nil
  end
  local mark, fence, score = string.match(raw, '^(x?)(%d+) (%S+) ')
  return fence, score, mark == 'x'
end

--- is_cancelled: whether somebody cancelled the message since it was leased.
local function is_cancelled(raw)
  return raw and string.find(raw, '^%S+ %S+ %S+ cancel$') ~= nil
end
