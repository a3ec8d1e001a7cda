-- What has become due, and what backends are to be told, of all queues in turn. ARGV: a number, and that many queues with the
-- edges that they had lost by the last answer; then the same for its queues, in its order, with the edges that were told: -1
-- if the node does not have the app.
-- Answers: queues and the numbers of edges that they lost; queues and their edges.

local ROUND = 400 -- edges in one answer
local CHORES = 200 -- done in one call

-- Takes from all queues what each has, `budget` together. What one does not need of its share goes to those after it.
local function share_out(queues, budget, take)
  for i, queue in ipairs(queues) do
    budget = budget - take(queue, math.floor(budget / (#queues - i + 1)))
  end
end

local function complete(chore)
  local kind, topic = chore[1], chore[2]
  if kind == 'm' then
    if redis.call('HEXISTS', G .. 'm:' .. topic, chore[3]) == 0 then edge('member_removed', topic, chore[3]) end
    return
  end
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

if not registered() then return { 'lost' } end
if redis.call('GET', G .. 'duty') ~= ME then return { 'ok', {}, {} } end

local function forget_dropped(queue, edges)
  local left = redis.call('HINCRBY', G .. 'dropped', queue, -edges)
  if left <= 0 then redis.call('HDEL', G .. 'dropped', queue) end
end

-- Counted by a node that has the answer.
local first = 6 + 2 * tonumber(ARGV[5])
for i = 6, first - 1, 2 do forget_dropped(ARGV[i], tonumber(ARGV[i + 1])) end

-- Those of the last answer were the first, and queue up again if they have more.
redis.call('LTRIM', G .. 'turns', (#ARGV + 1 - first) / 2, -1)
for i = first, #ARGV, 2 do
  local queue, told = ARGV[i], tonumber(ARGV[i + 1])
  local key = G .. 'edges:' .. queue
  if told < 0 then
    redis.call('SADD', G .. 'parked', queue)
  else
    -- What was dropped since then was at the head, where those that were told are: they are gone already, and not lost.
    local gone = math.min(told, tonumber(redis.call('HGET', G .. 'dropped', queue) or 0))
    if gone > 0 then forget_dropped(queue, gone) end
    redis.call('LTRIM', key, told - gone, -1)
    if redis.call('EXISTS', key) == 1 then redis.call('RPUSH', G .. 'turns', queue) end
  end
end

-- After all nodes were away, what was planned before waits for the clients on their way back.
local quiet = now < tonumber(redis.call('HGET', P .. 'meta', 'quiet') or 0)
local waiting = quiet and {} or redis.call('ZRANGEBYSCORE', G .. 'first_due', '-inf', digits(now), 'LIMIT', 0, CHORES)
share_out(waiting, CHORES, function(queue, share)
  local key = G .. 'due:' .. queue
  local chores = redis.call('ZRANGEBYSCORE', key, '-inf', digits(now), 'LIMIT', 0, share)
  for _, chore in ipairs(chores) do
    redis.call('ZREM', key, chore)
    complete(cjson.decode(chore))
  end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if first then
    -- With more that is due already, after all that have waited longer for their turn.
    redis.call('ZADD', G .. 'first_due', digits(math.max(tonumber(first), now)), queue)
  else
    redis.call('ZREM', G .. 'first_due', queue)
  end
  return #chores
end)

-- Counted before the edges are read: from here on, what is dropped may have been told.
local lost, dropped = {}, redis.call('HGETALL', G .. 'dropped')
for i = 1, #dropped, 2 do
  lost[#lost + 1] = dropped[i]
  lost[#lost + 1] = tonumber(dropped[i + 1])
end

local answer = {}
share_out(redis.call('LRANGE', G .. 'turns', 0, ROUND - 1), ROUND, function(queue, share)
  local edges = redis.call('LRANGE', G .. 'edges:' .. queue, 0, share - 1)
  answer[#answer + 1] = queue
  answer[#answer + 1] = edges
  return #edges
end)
return { 'ok', lost, answer }
