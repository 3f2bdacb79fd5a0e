--- states: the words that callers use for the sorted sets of waiting messages. Not processing: what runs is its worker's.
--- @include keys
local ZSETS = { waiting = MAIN, delayed = DELAYED, retry = RETRY, dead = DLQ }

--- zsets_of: the sorted sets of "waiting,delayed", or nil when a word is unknown.
local function zsets_of(text)
  local zsets = {}
  for word in string.gmatch(text, '[^,]+') do
    if not ZSETS[word] then
      return nil
    end
    zsets[#zsets + 1] = ZSETS[word]
  end
  return #zsets > 0 and zsets or nil
end
