--- lease: the record of a delivery, "fence score worker": the fence, the message's place in main, the holder.
--- A record marked "x" was taken back after its deadline: nobody holds the message, but its last holder may still ack.

--- read_lease: fence, score, whether taken back; nil when there is no record.
local function read_lease(raw)
  if not raw then
    return nil
  end
  local mark, fence, score = string.match(raw, '^(x?)(%d+) (%S+) ')
  return fence, score, mark == 'x'
end
