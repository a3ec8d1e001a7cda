-- Events, in this order. ARGV: 5 settling time in ms; then topic, message, lifetime in the cache in ms or empty, data for the cache.
-- Answers: subscribers and members of each topic.

if meta[1] ~= RUN then return { 'lost' } end
local answer, settled = { 'ok' }, tonumber(meta[3]) + ARGV[5]
for i = 6, #ARGV, 4 do
  local topic, body, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local t = load(topic)
  -- A topic without a stream is one that nobody listens to, or whose nodes are not back yet.
  if not t.id and now < settled and REPLAY > 0 then
    create(t)
    store(t)
  end
  if t.id then
    say(t, body)
    t.ev = t.seq
    redis.call('HSET', G .. 't:' .. topic, 'seq', t.seq, 'ms', digits(t.ms), 'ev', t.ev)
  end
  if ttl ~= '' then
    local key = P .. 'c:' .. topic
    redis.call('HSET', key, 'f', string.sub(body, 3 + string.byte(body, 2)), 'd', ARGV[i + 3])
    redis.call('PEXPIRE', key, ttl)
  end
  answer[#answer + 1] = t.total
  answer[#answer + 1] = redis.call('HLEN', G .. 'm:' .. topic)
end
return answer
