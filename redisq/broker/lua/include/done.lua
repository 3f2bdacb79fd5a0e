--- done: publish that the outcome of a job can be read. Only a hint, which its reader does without: it reads again each second
--- anyway. So a user who may not publish there must not fail the script, which has written already.
--- @include keys
local function tell_done(id)
  redis.pcall('PUBLISH', PREFIX .. ':done:' .. id, '1')
end
