--- lease: the record of a delivery, "fence score worker": the fence, the message's place in main, the holder.
--- A record marked "x" was taken back after its deadline: nobody holds the message, but its last holder may still ack.
--- A fourth word is of a delivery that had to wait for a thread or process: "waits", its handler was not called; "began", it
--- may have been. Without one it began at once, as far as is known. "waits" never comes back: a late call changes nothing.
--- One that ends in " cancel", as a last word, is of a message that is not wanted any more: it does not run again.

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
  return raw and string.find(raw, '^%S+ %S+ %S+ .*cancel$') ~= nil
end

--- is_waiting: whether its handler was not called.
local function is_waiting(raw)
  return raw and string.find(raw, '^%S+ %S+ %S+ waits') ~= nil
end

--- kept_waiting: the record of one that has to wait; nil: it stays as it is.
local function kept_waiting(raw)
  return string.find(raw, '^%S+ %S+ %S+$') and raw .. ' waits' or nil
end

--- begun: the record of one whose handler may be called from now on; nil: it stays as it is.
local function begun(raw)
  local head = string.match(raw, '^%S+ %S+ %S+')
  return head and head .. ' began'
end
