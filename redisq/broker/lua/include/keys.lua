--- keys: the fixed keys of a queue, in the one order that every script has, and the queue's prefix.
--- NEVER never exists. On Redis Cluster it turns a script that meets a migrating slot into TRYAGAIN before its
--- first command; and DEL of it, as a script's first write, lets the later ones pass on a full server (OOM).
local MAIN, DELAYED, RETRY, PROCESSING, DLQ = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local MESSAGES, LEASES, META = KEYS[6], KEYS[7], KEYS[8]
local CLOCK, STATS, CONFIG, WAKE, NEVER = KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local PREFIX = ARGV[1]
