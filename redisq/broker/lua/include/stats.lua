--- stats: counters. Read and checked before the first write, written once at the end.
--- @include keys
--- @include int
--- @include refuse

--- read_stats: {name -> value} of the named counters, or nil and a refusal.
local function read_stats(names)
  local found, stats = redis.call('HMGET', STATS, unpack(names)), {}
  for i = 1, #names do
    local value = 0
    if found[i] then
      value = natural(found[i])
      if not value then
        return nil, refuse('CORRUPT', 'field ' .. names[i] .. ' of ' .. STATS .. ' is not a number')
      end
    end
    stats[names[i]] = value
  end
  return stats
end

--- add_stats: write the counters that grew.
local function add_stats(stats, deltas)
  local pairs_ = {}
  for name, delta in pairs(deltas) do
    if delta > 0 then
      pairs_[#pairs_ + 1], pairs_[#pairs_ + 2] = name, int(stats[name] + delta)
    end
  end
  if #pairs_ > 0 then
    redis.call('HSET', STATS, unpack(pairs_))
  end
end
