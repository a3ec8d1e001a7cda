-- Who has a session of an HTTP transport. ARGV: 5 session, 6 address of this node, 7 "ask", "claim" or "release", 8 an address
-- where it is no more, or nothing, 9 for how long a claim holds, in seconds.
-- Answers: the address of the node that has it, or nothing.

local key, me = G .. 's:' .. ARGV[5], ARGV[6]
local owner = redis.call('GET', key)
if owner == ARGV[8] then owner = false end
if ARGV[7] == 'claim' and (not owner or owner == me) then
  redis.call('SET', key, me, 'EX', ARGV[9])
  owner = me
elseif ARGV[7] == 'release' and owner == me then
  redis.call('DEL', key)
  owner = false
end
return { 'ok', owner or '' }
