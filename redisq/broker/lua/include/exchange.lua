--- exchange: the fixed keys of an exchange of the kombu transport. No queue's key is among them.
local ROUTES, STREAM = KEYS[1], KEYS[2]
