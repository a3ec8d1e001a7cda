-- What has become due, and what backends are to be told. ARGV: 5 number of edges told since the last time, 6 of open ones.
-- Answers: open edges lost, others lost, edges, open edges.

if not registered() then return { 'lost' } end
if redis.call('GET', G .. 'duty') ~= ME then return { 'ok', 0, 0, {}, {} } end
for i, list in ipairs({ 'edges', 'open' }) do
  local told = tonumber(ARGV[4 + i])
  if told > 0 then redis.call('LTRIM', G .. list, told, -1) end
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', G .. 'due', '-inf', digits(now), 'LIMIT', 0, 200)) do
  redis.call('ZREM', G .. 'due', entry)
  local chore = cjson.decode(entry)
  local kind, topic = chore[1], chore[2]
  if kind == 'm' then
    if redis.call('HEXISTS', G .. 'm:' .. topic, chore[3]) == 0 then edge('member_removed', topic, chore[3]) end
  else
    local t = load(topic)
    if kind == 'v' and t.total == 0 then edge('channel_vacated', topic) end
    if kind == 'o' and t.total == 0 and t.on then
      go_offline(t)
      store(t)
    end
    if kind == 'n' and t.id then
      tell_count(t)
      store(t)
    end
  end
end
local lost = redis.call('HMGET', P .. 'meta', 'lost', 'lost_trusted')
if lost[1] or lost[2] then redis.call('HDEL', P .. 'meta', 'lost', 'lost_trusted') end
return {
  'ok', tonumber(lost[1] or 0), tonumber(lost[2] or 0),
  redis.call('LRANGE', G .. 'edges', 0, 199), redis.call('LRANGE', G .. 'open', 0, 199),
}
