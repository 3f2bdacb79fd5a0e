--- ledger: one caller's last call and its reply, so that a call repeated after a lost reply acts once.
--- A caller has at most one unanswered call; it numbers them upwards. The entry outlives any retry of the call.
--- @include keys
--- @include int
--- @include refuse
local LEDGER_TTL_MS = '600000'
-- In a queue that goes when nobody uses it, one for each reply it may be, it lives as long as that, and so long at least.
local PASSING_TTL_MS = 60000

--- recall: the reply's fields when this call was answered before; else nil, and perhaps a refusal.
local function recall(caller, number)
  if not number then
    return nil, refuse('ARGUMENT', 'call number')
  end
  local stored = redis.call('GET', PREFIX .. ':call:' .. caller)
  if not stored then
    return nil
  end
  local last, rest = string.match(stored, '^(%d+)(.*)$')
  last = tonumber(last)
  if not last then
    return nil, refuse('CORRUPT', 'key ' .. PREFIX .. ':call:' .. caller .. ' does not hold a call')
  end
  if last < number then
    return nil
  end
  if last > number then
    return nil, refuse('SUPERSEDED', 'call ' .. int(number) .. ' of ' .. caller .. ' came after call ' .. int(last))
  end
  local fields = {}
  for field in string.gmatch(rest, '[^\n]+') do
    fields[#fields + 1] = field
  end
  return fields
end

--- remember: keep the reply's fields (no line breaks, none empty). queue: what open_queue gave; an exchange has none.
local function remember(caller, number, fields, queue)
  local text = int(number)
  if #fields > 0 then
    text = text .. '\n' .. table.concat(fields, '\n')
  end
  local keep = LEDGER_TTL_MS
  if queue and queue.rules and queue.rules.ttl > 0 then
    keep = int(math.min(tonumber(keep), math.max(queue.rules.ttl, PASSING_TTL_MS)))
  end
  redis.call('SET', PREFIX .. ':call:' .. caller, text, 'PX', keep)
end
