-- Who has a session of an HTTP transport. ARGV: 5 session, 6 address of this node, 7 "ask", "claim" or "release", 8 an address
-- where it is no more, or nothing, 9 for how long a claim holds, in seconds.
-- Answers: the address of the node that has it, or nothing; and an address that is there, but of no node that is registered,
-- or nothing.

local key, me = G .. 's:' .. ARGV[5], ARGV[6]
local owner = redis.call('GET', key)
if owner == ARGV[8] then owner = false end
-- Requests of clients, with their cookies, go to the owner: it has to be one of us.
local stranger = ''
if owner and owner ~= me then
  local found = false
  local info = redis.call('HGETALL', G .. 'info')
  for i = 2, #info, 2 do
    local ok, node = pcall(cjson.decode, info[i])
    found = found or (ok and type(node) == 'table' and node.address == owner)
  end
  if not found then owner, stranger = false, owner end
end
if ARGV[7] == 'claim' and (not owner or owner == me) then
  redis.call('SET', key, me, 'EX', ARGV[9])
  owner = me
elseif ARGV[7] == 'release' and owner == me then
  redis.call('DEL', key)
  owner = false
end
return { 'ok', owner or '', stranger }
