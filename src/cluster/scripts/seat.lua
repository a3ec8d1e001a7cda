-- A connection more of an app with a quota. ARGV: 5 app, 6 connections of this node with it, 7 quota.
-- Answers: whether there is room.

if not registered() then return { 'lost' } end
local key, total = G .. 'q:' .. ARGV[5], tonumber(ARGV[6])
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  -- What this node had before it came back is not counted again.
  if string.match(all[i], '^[^#]*') ~= string.match(ME, '^[^#]*') then total = total + all[i + 1] end
end
if total > tonumber(ARGV[7]) then return { 'ok', 0 } end
redis.call('HSET', key, ME, ARGV[6])
return { 'ok', 1 }
