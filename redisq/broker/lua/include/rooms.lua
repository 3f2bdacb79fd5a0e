--- rooms: which pool of the caller runs a message, and whether it has room there.
--- @include refuse

--- task_of: the task's name in an encoded message, which is [1, task, ...] in msgpack; nil when the body is none.
local function task_of(body)
  local array, version, text, length = string.byte(body, 1, 4)
  if array ~= 0x94 or (version ~= 1 and version ~= 2) or not text then
    return nil
  elseif text >= 0xa0 and text <= 0xbf then
    return string.sub(body, 4, 3 + text - 0xa0)
  end
  return text == 0xd9 and length and string.sub(body, 5, 4 + length) or nil
end

--- open_rooms: the rooms in ARGV from `first` on, three values each; nil when there are none, nil and the refusal when they
--- are malformed. exact: what the caller would only take ahead does not count.
local function open_rooms(first, exact)
  if not ARGV[first] then
    return nil
  end
  -- free: for messages that may begin soon; at_once: for those that have to begin at once.
  local rooms, free, at_once, tasks, short, known = {}, {}, {}, {}, {}, {}
  for i = first, #ARGV, 3 do
    local room, ahead, names = natural(ARGV[i]), natural(ARGV[i + 1]), ARGV[i + 2]
    if not room or not ahead or ahead > room or not names then
      return nil, refuse('ARGUMENT', 'claim takes rooms as (room, ahead, tasks)*, with ahead at most room')
    end
    free[#free + 1], at_once[#at_once + 1], tasks[#tasks + 1] = exact and room - ahead or room, room - ahead, names
  end

  --- pool_of: the number of the pool that runs the messages that begin like that.
  local function pool_of(body)
    local name = #tasks > 1 and task_of(body)
    if name then
      for i = 2, #tasks do
        if string.find(tasks[i], '\0' .. name .. '\0', 1, true) then
          return i
        end
      end
    end
    return 1
  end

  --- has_to_begin: whether a message is not taken ahead. One that was there when a worker died: what only waits is charged with
  --- the death of its worker no second time. One that is acked before it begins: nobody could give it back, or find it again.
  local function has_to_begin(body, meta, names)
    if meta and string.find(meta, 'crashes=', 1, true) then
      return true
    end
    local name = string.find(names, '\1', 1, true) and task_of(body)
    return name and string.find(names, '\1' .. name .. '\0', 1, true)
  end

  --- rooms.find: the number of the pool that has room for a message; nil when its pool has none, and this is noted.
  function rooms.find(body, meta)
    -- Most messages are of few tasks: the head of a body, up to the task's name, is looked up once.
    local text = string.byte(body, 3)
    local head = text and text >= 0xa0 and text <= 0xbf and string.sub(body, 1, text - 0x9d) or body
    local pool = known[head]
    if not pool then
      pool = pool_of(body)
      known[head] = pool
    end
    if at_once[pool] <= 0 and free[pool] > 0 and has_to_begin(body, meta, tasks[pool]) then
      free[pool] = 0 -- nothing passes it: else it would never find room
    end
    if free[pool] > 0 then
      return pool
    end
    short[pool] = true
    return nil
  end

  --- rooms.take: one message more runs in that pool.
  function rooms.take(pool)
    free[pool], at_once[pool] = free[pool] - 1, at_once[pool] - 1
  end

  --- rooms.shortage: the numbers of the pools that had no room for a message, from 0, as text.
  function rooms.shortage()
    local numbers = {}
    for pool = 1, #tasks do
      if short[pool] then
        numbers[#numbers + 1] = int(pool - 1)
      end
    end
    return table.concat(numbers, ' ')
  end

  return rooms
end
