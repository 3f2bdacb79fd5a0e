--- exchange: the fixed keys of an exchange of the kombu transport. No queue's key is among them.
local ROUTES, STREAM = KEYS[1], KEYS[2]
-- The score of a route that lasts for good: the greatest number that a score holds exactly.
local FOR_GOOD = 9007199254740991
