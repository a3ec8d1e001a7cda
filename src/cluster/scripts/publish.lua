-- Events, in this order. ARGV: 5 settling time in ms; then topic, message, lifetime in the cache in ms or empty, data for the cache.
-- Answers: subscribers and members of each topic; then app and number of the cached events that had to go before their time.

-- What a cached event takes besides its text: the overhead of Redis, and its place in the account.
local OVERHEAD = 512
local evicted = {}

local function account(ages, sizes, topic, bytes)
  local known = redis.call('HGET', sizes, topic)
  local change = bytes - (known or 0)
  if bytes > 0 then
    redis.call('HSET', sizes, topic, bytes)
  else
    redis.call('HDEL', sizes, topic)
    redis.call('ZREM', ages, topic)
  end
  return redis.call('HINCRBY', sizes, '', change)
end

-- Keeps the cached events of an app within its share of this partition: the oldest go, the new one too if it alone is too
-- large. All have the same lifetime, so that the first to expire is the oldest.
local function remember(topic, ttl, frame, data)
  local app, key = app_of(topic), P .. 'c:' .. topic
  local ages, sizes = P .. 'c:ages:' .. app, P .. 'c:sizes:' .. app
  redis.call('HSET', key, 'f', frame, 'd', data)
  redis.call('PEXPIRE', key, ttl)
  -- More than one, so that they do not pile up if events come on ever new channels.
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', digits(now), 'LIMIT', 0, 16)) do
    account(ages, sizes, gone, 0)
  end
  redis.call('ZADD', ages, digits(now + ttl), topic)
  local total = account(ages, sizes, topic, #frame + #data + 2 * #topic + OVERHEAD)
  local limit = rules_of(topic).cache_size
  while limit and total > limit do
    local oldest = redis.call('ZRANGE', ages, 0, 0)[1]
    if not oldest then break end
    redis.call('DEL', P .. 'c:' .. oldest)
    total = account(ages, sizes, oldest, 0)
    evicted[app] = (evicted[app] or 0) + 1
  end
  local last = redis.call('ZRANGE', ages, -1, -1, 'WITHSCORES')[2]
  for _, account_key in ipairs({ ages, sizes }) do
    -- The account goes with the last event.
    if last then redis.call('PEXPIRE', account_key, digits(last - now)) else redis.call('DEL', account_key) end
  end
end

-- Keeps what was just said for nodes that listen again within the replay. Only events: members and counts come with
-- everything else.
local function log(t, body)
  local key = G .. 'l:' .. t.topic
  local id, oldest = digits(t.ms) .. '-' .. t.seq, digits(now - REPLAY)
  redis.call('XADD', key, 'MINID', '~', oldest, id, 'd', body, 'before', t.ev)
  -- Often enough, but not each time.
  if math.floor(t.seq / 64) > math.floor(t.ev / 64) then redis.call('XTRIM', key, 'MAXLEN', '~', REPLAY_EVENTS) end
  redis.call('PEXPIRE', key, REPLAY)
end

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
    if REPLAY > 0 then log(t, body) end
    t.ev = t.seq
    redis.call('HSET', G .. 't:' .. topic, 'seq', t.seq, 'ms', digits(t.ms), 'ev', t.ev)
  end
  if ttl ~= '' then
    remember(topic, tonumber(ttl), string.sub(body, 3 + string.byte(body, 2)), ARGV[i + 3])
  end
  answer[#answer + 1] = t.total
  answer[#answer + 1] = redis.call('HLEN', G .. 'm:' .. topic)
end
for app, count in pairs(evicted) do
  answer[#answer + 1] = app
  answer[#answer + 1] = count
end
return answer
