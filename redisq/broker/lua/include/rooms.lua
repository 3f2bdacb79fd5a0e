--- rooms: which pool of the caller runs a message, and whether it has room there.
--- @include refuse

--- head_of: how long the head of a body is, up to the task's name, and the name: an encoded message is [version, task, ...] in msgpack.
--- When the body is none: all of it, and nil.
local function head_of(body)
  local array, version, text, length = string.byte(body, 1, 4)
  if array ~= 0x94 or (version ~= 1 and version ~= 2) or not text then
    return #body, nil
  elseif text >= 0xa0 and text <= 0xbf then
    local width = 3 + text - 0xa0
    return width, string.sub(body, 4, width)
  elseif text == 0xd9 and length then
    return 4 + length, string.sub(body, 5, 4 + length)
  end
  return #body, nil
end

--- open_rooms: read the rooms in ARGV, three values each, from `first` on. Returns take and short; nil when there are no rooms;
--- nil, nil and the refusal when they are malformed. exact: leave out the room for messages that would only begin soon.
--- take(body, meta, asks): return whether the pool of a message has room for it, and use that room. asks: use none; the meta of a
--- message without one is '' then. short: the numbers, from 1, of the pools without room for a message, {number -> true}.
local function open_rooms(first, exact)
  if not ARGV[first] then
    return nil
  end
  -- free: for messages that may begin soon; at_once: for those that have to begin at once.
  local free, at_once, tasks, short = {}, {}, {}, {}
  for i = first, #ARGV, 3 do
    local room, ahead, names = natural(ARGV[i]), natural(ARGV[i + 1]), ARGV[i + 2]
    if not room or not ahead or ahead > room or not names then
      return nil, nil, refuse('ARGUMENT', 'claim takes rooms as (room, ahead, tasks)*, with ahead at most room')
    end
    free[#free + 1], at_once[#at_once + 1], tasks[#tasks + 1] = exact and room - ahead or room, room - ahead, names
  end

  -- Many messages of one task follow each other: it is looked up once. never_ahead: it is acked before it begins, so what waits
  -- could not be given back, nor be found again.
  local head, width, pool, never_ahead = nil, 0, 1, false
  -- easy: how many more plain messages of this task have room; used: how many of them took it since the counts were written.
  local easy, used, sub = 0, 0, string.sub

  return function(body, meta, asks)
    if used < easy and not meta and sub(body, 1, width) == head then
      used = used + 1
      return true
    end
    free[pool], at_once[pool] = free[pool] - used, at_once[pool] - used
    easy, used = 0, 0
    if sub(body, 1, width) ~= head then
      local name
      width, name = head_of(body)
      head, pool = sub(body, 1, width), 1
      for i = 2, name and #tasks or 1 do
        pool = string.find(tasks[i], '\0' .. name .. '\0', 1, true) and i or pool
      end
      never_ahead = name and string.find(tasks[pool], '\1' .. name .. '\0', 1, true)
    end
    -- One that was there when a worker died is not taken ahead: what only waits is charged with the death of its worker no
    -- second time.
    if at_once[pool] <= 0 and free[pool] > 0 and (never_ahead or meta and string.find(meta, 'crashes=', 1, true)) then
      free[pool] = 0 -- nothing passes it: else it would never find room
    end
    if free[pool] <= 0 then
      short[pool] = true
      return false
    end
    if asks then
      return true
    end
    free[pool], at_once[pool] = free[pool] - 1, at_once[pool] - 1
    easy = never_ahead and at_once[pool] or free[pool]
    return true
  end, short
end
