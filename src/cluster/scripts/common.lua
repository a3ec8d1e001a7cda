-- What all scripts share. Each runs inside one partition, whose keys begin with KEYS[1] and so lie in one hash slot.
--
--   <P>meta           run id of the server, generation, its birth, until when nobody is reported gone who was there
--                     before (hold), until when nothing becomes due (quiet), whether the keys of earlier generations are
--                     gone (swept)
--   <P>c:<topic>      cached event: f frame, d data; it outlives a generation, as do the next two
--   <P>c:ages:<app>   topics with a cached event, by its expiry     <P>c:sizes:<app>  topic → its bytes, empty → their sum
--   <P>p:<topic>      the pub/sub channel
--   <G>nodes          node → end of its lease (0: being removed)     <G>info   node → JSON about it
--   <G>i:<node>       topics it contributes to                       <G>q:<app> node → connections
--   <G>t:<topic>      stream id, seq, ms, ev (seq of the last event), total, on (user is online), counted (when the count
--                     was told), by (whose doing its last change was)
--   <G>n:<topic>      node → connections subscribed or signed in
--   <G>m:<topic>      member → info     <G>r:<topic>  member → nodes     <G>o:<topic> <node>  the node's members
--   <G>l:<topic>      replay log of its events     <G>a:<app>    occupied channels  <G>rules  app → JSON
--   <G>edges:<queue>  what a backend is to be told                      <G>turns  queues with edges, the next one first
--   <G>parked         queues of apps that the node on duty does not have
--   <G>due:<queue>    what becomes known later, by its time             <G>first_due  queue → when its first may be due
--   <G>dropped        queue → edges dropped that the node on duty has not counted yet
--   <G>duty           the node that tells backends                       <G>held   nodes that were gone when one came
--   <G>x:<topic>      a cache channel was reported as empty
--   <G>s:<session>    address of the node that has a session of an HTTP transport
--
-- An app has two queues, so that no app waits behind another one, or is dropped for it: `trusted:<app>` is about what needs
-- a signature of the app's backend, `open:<app>` about what anybody with the app key can cause.
--
-- A generation ends when the server restarts, fails over or loses its data; the nodes know what is true of their clients,
-- and bring it into the next one. ARGV: 1 run id, 2 node, 3 replay in ms, 4 replay in events.

local P = KEYS[1]
local RUN, ME, REPLAY, REPLAY_EVENTS = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local EDGES = 500000 -- of all queues of a class together, see `share`: the oldest are dropped
local PLANNED = 500000 -- as well: what comes on top is not delayed
local LEAST = 10000 -- of each queue, however many apps there are
local LINGER = math.max(REPLAY, 60000) -- how long an abandoned topic keeps its place in its stream

local clock = redis.call('TIME')
local us = clock[1] * 1000000 + clock[2]
local now = math.floor(us / 1000)
local meta = redis.call('HMGET', P .. 'meta', 'run', 'gen', 'born', 'hold')
local G = P .. (meta[2] or '') .. ':'

local function digits(number) return string.format('%.0f', number) end

-- Whether this node may change anything here.
local function registered()
  if meta[1] ~= RUN then return false end
  local lease = redis.call('ZSCORE', G .. 'nodes', ME)
  return lease and tonumber(lease) > 0
end

local sources = {} -- topic → whose doing its last change was

local function load(topic)
  local h = redis.call('HMGET', G .. 't:' .. topic, 'id', 'seq', 'ms', 'ev', 'total', 'on', 'counted', 'by')
  sources[topic] = h[8] or ''
  return {
    topic = topic, id = h[1] or nil, seq = tonumber(h[2] or 0), ms = tonumber(h[3] or 0), ev = tonumber(h[4] or 0),
    total = tonumber(h[5] or 0), on = h[6] == '1', counted = tonumber(h[7] or 0),
  }
end

local function store(t)
  local key = G .. 't:' .. t.topic
  redis.call('HSET', key, 'id', t.id, 'seq', t.seq, 'ms', digits(t.ms), 'ev', t.ev, 'total', t.total,
    'on', t.on and 1 or 0, 'counted', digits(t.counted))
  if t.total > 0 or t.on then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, LINGER) end
end

-- Begins a stream, in which the log of an earlier one has no place.
local function create(t)
  t.id = digits(us)
  redis.call('DEL', G .. 'l:' .. t.topic)
end

-- The next message of a topic, for all nodes that listen to it.
local function say(t, body)
  t.seq = t.seq + 1
  t.ms = math.max(t.ms, now)
  redis.call('SPUBLISH', P .. 'p:' .. t.topic, struct.pack('>I8I8I8', tonumber(t.id), t.seq, t.ms) .. body)
end

local function app_of(topic) return string.match(topic, '^.:([^:]*):') end

local known_rules = {}
local function rules_of(topic)
  local app = app_of(topic)
  if not known_rules[app] then
    -- An app that no node of this generation has had: what is left of it goes without a word.
    local none = '{"offline_delay":0,"webhook_delay":0}'
    known_rules[app] = cjson.decode(redis.call('HGET', G .. 'rules', app) or none)
  end
  return known_rules[app]
end

-- Whether a client needs a signature of the app's backend to cause what happens to a topic.
local function is_trusted(topic)
  return string.find(topic, '^u:') or string.find(topic, '^c:[^:]*:private%-') or string.find(topic, '^c:[^:]*:presence%-')
end

local function queue_of(topic) return (is_trusted(topic) and 'trusted:' or 'open:') .. app_of(topic) end

-- What each app may have of a bound that all have together.
local apps
local function share(bound)
  apps = apps or math.max(1, redis.call('HLEN', G .. 'rules'))
  return math.max(LEAST, math.floor(bound / apps))
end

-- Something that a backend is told, once. All of a topic is in one queue, and so in order. Each queue has a bound of its own:
-- however many public channels a client subscribes to, no member event is lost, and nothing of another app.
local function edge(kind, topic, subject)
  if not rules_of(topic).webhooks then return end
  local queue = queue_of(topic)
  local key = G .. 'edges:' .. queue
  local by = sources[topic] or redis.call('HGET', G .. 't:' .. topic, 'by') or ''
  local length = redis.call('RPUSH', key, cjson.encode({ kind, topic, tostring(subject or ''), by }))
  if length == 1 then redis.call('RPUSH', G .. 'turns', queue) end
  if length > share(EDGES) then
    redis.call('LPOP', key)
    redis.call('HINCRBY', G .. 'dropped', queue, 1)
  end
end

local hold = 0 -- nothing is told before

-- False if as much is planned as may be: then it is to be done at once. Clients can begin and end things faster than they
-- become due, so without a bound this would grow for as long as they do.
local function plan(at, chore)
  at = at + 1 -- `now` is rounded down: a delay is never shorter than it was set
  local queue, entry = queue_of(chore[2]), cjson.encode(chore)
  local key = G .. 'due:' .. queue
  -- Not ZCARD, which would be one more right to grant.
  if redis.call('ZCOUNT', key, '-inf', '+inf') >= share(PLANNED) and not redis.call('ZSCORE', key, entry) then return false end
  redis.call('ZADD', key, digits(at), entry)
  -- Too early if the first is cancelled: duty.lua finds out.
  redis.call('ZADD', G .. 'first_due', 'LT', digits(at), queue)
  return true
end

-- True if it was planned and now is not.
local function cancel(chore)
  return redis.call('ZREM', G .. 'due:' .. queue_of(chore[2]), cjson.encode(chore)) == 1
end

-- What ends and begins again within the delay is never told.
local function began(kind, chore, known)
  if not cancel(chore) and not known then edge(kind, chore[2], chore[3]) end
end

local function ended(kind, chore, delay)
  local at = math.max(now + delay, hold)
  if at <= now or not plan(at, chore) then edge(kind, chore[2], chore[3]) end
end

local function tell_count(t)
  t.counted = now
  say(t, 'n' .. t.total)
  edge('subscription_count', t.topic, t.total)
end

local function count_changed(t, rules)
  if not rules.counts or string.find(t.topic, '^c:[^:]*:presence%-') then return end
  local at = t.counted + rules.count_interval
  if t.total <= rules.count_threshold or at <= now or not plan(at, { 'n', t.topic }) then tell_count(t) end
end

local function go_offline(t)
  t.on = false
  say(t, 'f')
  edge('user_offline', t.topic)
end

-- The number of connections with which a node is there.
local function set_count(t, node, count, rules, known)
  local topic, key = t.topic, G .. 'n:' .. t.topic
  local had = tonumber(redis.call('HGET', key, node) or 0)
  if count == had then return end
  if count > 0 then redis.call('HSET', key, node, count) else redis.call('HDEL', key, node) end
  local before = t.total
  t.total = before + count - had
  if string.sub(topic, 1, 1) == 'u' then
    if t.total > 0 then
      cancel({ 'o', topic })
      if not t.on then
        t.on = true
        say(t, 'o')
        if not known then edge('user_online', topic) end
      end
    elseif t.on then
      local at = math.max(now + rules.offline_delay, hold)
      if at <= now or not plan(at, { 'o', topic }) then go_offline(t) end
    end
    return
  end
  if before == 0 then
    redis.call('SADD', G .. 'a:' .. app_of(topic), topic)
    if rules.webhooks then began('channel_occupied', { 'v', topic }, known) end
  elseif t.total == 0 then
    redis.call('SREM', G .. 'a:' .. app_of(topic), topic)
    if rules.webhooks then ended('channel_vacated', { 'v', topic }, rules.webhook_delay) end
  end
  count_changed(t, rules)
end

-- False if the channel is full.
local function add_member(t, node, id, info, rules, known)
  local topic = t.topic
  local members = G .. 'm:' .. topic
  if redis.call('HEXISTS', members, id) == 0 and redis.call('HLEN', members) >= rules.presence_members then
    return false
  end
  if redis.call('SADD', G .. 'o:' .. topic .. ' ' .. node, id) == 0 then return true end
  if redis.call('HINCRBY', G .. 'r:' .. topic, id, 1) == 1 then
    redis.call('HSET', members, id, info)
    say(t, 'a' .. struct.pack('>I2', #id) .. id .. info)
    if rules.webhooks then began('member_added', { 'm', topic, id }, known) end
  end
  return true
end

local function remove_member(t, node, id, rules)
  local topic = t.topic
  if redis.call('SREM', G .. 'o:' .. topic .. ' ' .. node, id) == 0 then return end
  if redis.call('HINCRBY', G .. 'r:' .. topic, id, -1) == 0 then
    redis.call('HDEL', G .. 'r:' .. topic, id)
    redis.call('HDEL', G .. 'm:' .. topic, id)
    say(t, 'r' .. id)
    if rules.webhooks then ended('member_removed', { 'm', topic, id }, rules.webhook_delay) end
  end
end

-- Lists a topic with the node exactly while the node contributes to it.
local function index(t, node)
  local topic = t.topic
  local there = redis.call('HEXISTS', G .. 'n:' .. topic, node) == 1
    or redis.call('EXISTS', G .. 'o:' .. topic .. ' ' .. node) == 1
  redis.call(there and 'SADD' or 'SREM', G .. 'i:' .. node, topic)
end

-- Takes back what a node contributes, at most `max` topics of it. True once nothing is left.
local function drop(node, max)
  -- Its clients are on their way back, see beat.lua.
  hold = redis.call('SISMEMBER', G .. 'held', node) == 1 and tonumber(meta[4]) or 0
  if redis.call('ZSCORE', G .. 'nodes', node) then redis.call('ZADD', G .. 'nodes', 0, node) end
  local topics = redis.call('SRANDMEMBER', G .. 'i:' .. node, max)
  for _, topic in ipairs(topics) do
    local t, rules = load(topic), rules_of(topic)
    for _, id in ipairs(redis.call('SMEMBERS', G .. 'o:' .. topic .. ' ' .. node)) do
      remove_member(t, node, id, rules)
    end
    set_count(t, node, 0, rules)
    store(t)
    index(t, node)
  end
  if #topics == max then return false end
  for _, app in ipairs(redis.call('HKEYS', G .. 'rules')) do redis.call('HDEL', G .. 'q:' .. app, node) end
  redis.call('ZREM', G .. 'nodes', node)
  redis.call('HDEL', G .. 'info', node)
  if redis.call('GET', G .. 'duty') == node then redis.call('DEL', G .. 'duty') end
  return true
end
