--- descriptor: what a message waits for besides its turn: "head kind flow need*".
--- head: head start of its priority, us; kind: C a lane, H a lane that a dead letter holds, F no lane; flow: "@lane", or the
--- limits' names; need: "Rgate,cost" a rate (cost 0: it can only be paused), "Sgate,1" a slot; gate: class or class:instance.

local NOTHING = {}

--- read_descriptor: its parts but the head start, or nil when it is none.
local function read_descriptor(raw)
  local kind, flow, rest = string.match(raw, '^%d+ ([CHF]) (%S+)(.*)$')
  return kind and { kind = kind, flow = flow, rest = rest }
end

--- is_descriptor: whether it is one, to the last letter. What is stored was checked so.
local function is_descriptor(descriptor)
  return descriptor and (descriptor.rest == '' or string.gsub(descriptor.rest, ' [RS][^ ,]+,%d+', '') == '')
end

--- needs_of: {(kind, gate, cost)*} of a descriptor.
local function needs_of(descriptor)
  if descriptor.rest == '' then
    return NOTHING
  end
  local needs = descriptor.needs
  if not needs then
    needs = {}
    local at = 0
    for kind, gate, cost in string.gmatch(descriptor.rest, ' (%u)([^ ,]+),(%d+)') do
      needs[at + 1], needs[at + 2], needs[at + 3] = kind, gate, tonumber(cost)
      at = at + 3
    end
    descriptor.needs = needs
  end
  return needs
end
