--- done: tell who waits for a job that its outcome can be read. Only a hint: it is read again each second anyway.
--- @include keys
local function tell_done(id)
  redis.call('PUBLISH', PREFIX .. ':done:' .. id, '1')
end
