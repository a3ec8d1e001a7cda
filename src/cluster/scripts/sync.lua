-- What a node contributes to a topic, and what it has to know of it. ARGV: 5 topic, 6 connections, 7 whether it needs
-- everything, 8 whether it brings this into a new generation, 9 whether a cache channel had nothing to show, 10 settling
-- time in ms, 11 to 13 id, seq and ms of the last message it has, or empty, 14 whose doing this is, or empty; then a number
-- and that many members to add (id, info), members to remove (id), and members that it believes in although they are not its
-- own (id, info).
-- Answers: id, seq, ms, total, members refused; and if it needs everything: whether events are missing, members, whether
-- the user is online, cached event and its time left in ms, events since.

if not registered() then return { 'lost' } end
local topic, everything, known, settling = ARGV[5], ARGV[7] == '1', ARGV[8] == '1', tonumber(ARGV[10])
local t, rules, at = load(topic), rules_of(topic), 15

local function list(width)
  local items = {}
  local length = tonumber(ARGV[at])
  for i = 1, length do items[i] = { ARGV[at + 1 + (i - 1) * width], ARGV[at + i * width] } end
  at = at + 1 + length * width
  return items
end
local added, removed, believed = list(2), list(1), list(2)

if not t.id then create(t) end
if ARGV[14] ~= '' and rules.webhooks then
  sources[topic] = ARGV[14]
  redis.call('HSET', G .. 't:' .. topic, 'by', ARGV[14])
end
for _, member in ipairs(removed) do remove_member(t, ME, member[1], rules) end
set_count(t, ME, tonumber(ARGV[6]), rules, known)
local refused = {}
for _, member in ipairs(added) do
  if not add_member(t, ME, member[1], member[2], rules, known) then refused[#refused + 1] = member[1] end
end
index(t, ME)

-- In a new generation others may not be back yet: what clients believe stays until they had the time.
local settled = tonumber(meta[3]) + settling
if #believed > 0 and now < settled then
  redis.call('ZADD', G .. 'nodes', 'NX', digits(settled), '~')
  for _, member in ipairs(believed) do
    if string.sub(topic, 1, 1) == 'u' then
      if t.total == 0 then set_count(t, '~', 1, rules, true) end
    elseif redis.call('HEXISTS', G .. 'm:' .. topic, member[1]) == 0 then
      add_member(t, '~', member[1], member[2], rules, true)
    end
  end
  index(t, '~')
end
-- It was told to be occupied, and whoever was there has left while nobody could take note of it.
if known and t.total == 0 and rules.webhooks and string.sub(topic, 1, 1) == 'c' then
  ended('channel_vacated', { 'v', topic }, math.max(rules.webhook_delay, settled - now))
end

if ARGV[9] == '1' and redis.call('SET', G .. 'x:' .. topic, 1, 'NX', 'PX', 10000) then edge('cache_miss', topic) end
store(t)

local answer = { 'ok', t.id, t.seq, digits(t.ms), t.total, refused }
if everything then
  local missing, since = 0, {}
  if ARGV[11] ~= '' then
    local log = G .. 'l:' .. topic
    if ARGV[11] ~= t.id then
      -- What was said at the end of the other stream, nobody knows; this one is new, and nothing of it was heard.
      missing = 1
      if known then
        for _, entry in ipairs(redis.call('XRANGE', log, '-', '+')) do since[#since + 1] = entry[2][2] end
      end
    elseif tonumber(ARGV[12]) < t.ev then
      local entries = redis.call('XRANGE', log, '(' .. ARGV[13] .. '-' .. ARGV[12], '+')
      for _, entry in ipairs(entries) do since[#since + 1] = entry[2][2] end
      -- Each knows the seq of the event before it. If that is one that the node has not seen, it is in the log no more.
      if #entries == 0 or tonumber(entries[1][2][4]) > tonumber(ARGV[12]) then missing = 1 end
    end
  end
  local cached = P .. 'c:' .. topic
  answer[7] = {
    missing, redis.call('HGETALL', G .. 'm:' .. topic), t.on and 1 or 0,
    redis.call('HGET', cached, 'f') or '', redis.call('PTTL', cached), since,
  }
end
return answer
