--- meta: what only some messages have. "attempt=2 crashes=1 parks=0 score=... requeues=1 since=...
--- expires=... dedupe=... reason=failed text=..."
--- attempt: number of the next run, from 1; crashes: leases that ended by expiry; parks: times put aside (unknown task);
--- requeues: times that a consumer gave it back on purpose, since: when it first did, us;
--- score: its place in main; expires: dropped if not leased by then, us; dedupe: the key that it stands for; died: when it
--- became a dead letter, us; reason: why it waits or died; text: the rest, free text. What is absent is the default.
--- @include int

local function read_meta(raw)
  local meta = { attempt = 1, crashes = 0, parks = 0, requeues = 0 }
  if raw then
    local head, text = string.match(raw, '^(.-) ?text=(.*)$')
    for name, value in string.gmatch(head or raw, '(%l+)=(%S+)') do
      meta[name] = (name == 'reason' or name == 'dedupe') and value or tonumber(value) or meta[name]
    end
    meta.text = text
  end
  return meta
end

local function write_meta(meta)
  local parts = {}
  if meta.attempt > 1 then parts[#parts + 1] = 'attempt=' .. int(meta.attempt) end
  if meta.crashes > 0 then parts[#parts + 1] = 'crashes=' .. int(meta.crashes) end
  if meta.parks > 0 then parts[#parts + 1] = 'parks=' .. int(meta.parks) end
  if meta.score then parts[#parts + 1] = 'score=' .. int(meta.score) end
  if meta.requeues > 0 then parts[#parts + 1] = 'requeues=' .. int(meta.requeues) .. (meta.since and ' since=' .. int(meta.since) or '') end
  if meta.expires then parts[#parts + 1] = 'expires=' .. int(meta.expires) end
  if meta.dedupe then parts[#parts + 1] = 'dedupe=' .. meta.dedupe end
  if meta.died then parts[#parts + 1] = 'died=' .. int(meta.died) end
  if meta.reason then parts[#parts + 1] = 'reason=' .. meta.reason end
  if meta.text then parts[#parts + 1] = 'text=' .. meta.text end
  return table.concat(parts, ' ')
end

--- metas_of: the raw meta of each id; an empty table while no message of the queue has one.
local function metas_of(queue, ids)
  if queue.meta == 0 or #ids == 0 then
    return {}
  end
  return redis.call('HMGET', META, unpack(ids))
end
