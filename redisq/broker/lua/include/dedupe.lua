--- dedupe: "once at the door": a key names the message that stands for all of its kind, from its enqueue to its end, and
--- for its window if that is longer. Value: "id until"; until: us, 0 for no window. While the message lives the key has no
--- TTL; the script that ends the message deletes it, or leaves it the rest of the window. Its name is in the message's meta.
--- @include queue

--- will_end_dedupes: before the first write of a script that calls dedupe_end.
local function will_end_dedupes(queue)
  if queue.meta > 0 then
    will_touch(queue, PREFIX .. ':dedupe:')
  end
end

--- dedupe_end: the message with that meta record ended for good, or died.
local function dedupe_end(id, raw_meta, now)
  if not raw_meta or not string.find(raw_meta, 'dedupe=', 1, true) then
    return
  end
  local key = string.match(string.match(raw_meta, '^(.-) ?text=') or raw_meta, 'dedupe=(%S+)')
  local name = key and PREFIX .. ':dedupe:' .. key
  -- MGET, which finds nothing in a key of another type: GET would end a script that has written already.
  local owner, till = string.match(name and redis.call('MGET', name)[1] or '', '^(%S+) (%d+)$')
  if owner == id then
    local left = math.floor((tonumber(till) - now) / 1000)
    if left > 0 then
      redis.call('PEXPIRE', name, int(left))
    else
      redis.call('DEL', name)
    end
  end
end
