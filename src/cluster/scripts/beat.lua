-- A sign of life: renews or begins the lease, removes nodes whose lease is over, and sees to it that somebody has the duty
-- to tell backends. ARGV: 5 lease, 6 settling time, 7 restart grace (ms each), 8 JSON about the node, 9 whether to begin,
-- 10 rules as JSON, by app; then app, connections for each app.
-- Answers: generation, whether keys of earlier ones may be left, whether this node is on duty, nodes removed, whether more is to be removed.

local lease, settling, grace, begin = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[9] == '1'
if begin and meta[1] ~= RUN then
  meta = { RUN, digits(us), digits(now), false }
  G = P .. meta[2] .. ':'
  redis.call('DEL', P .. 'meta')
  redis.call('HSET', P .. 'meta', 'run', RUN, 'gen', meta[2], 'born', meta[3])
end
if not begin and not registered() then return { 'lost' } end

local nodes = G .. 'nodes'
if begin then
  if redis.call('ZCOUNT', nodes, '(' .. digits(now), '+inf') == 0 then
    -- Everybody was away, and the clients are on their way back: nobody is reported gone before they had the time.
    meta[4] = digits(now + grace)
    redis.call('HSET', P .. 'meta', 'hold', meta[4])
    local gone = redis.call('ZRANGE', nodes, 0, -1)
    if #gone > 0 then
      redis.call('SADD', G .. 'held', unpack(gone))
      redis.call('PEXPIRE', G .. 'held', grace + lease)
    end
    -- Not by a new time for each chore: there may be more of them than can be walked over within a lease.
    if redis.call('EXISTS', G .. 'first_due') == 1 then redis.call('HSET', P .. 'meta', 'quiet', meta[4]) end
  end
  for app, rules in pairs(cjson.decode(ARGV[10])) do redis.call('HSET', G .. 'rules', app, cjson.encode(rules)) end
end
redis.call('ZADD', nodes, digits(now + lease), ME)
redis.call('HSET', G .. 'info', ME, ARGV[8])
for i = 11, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', G .. 'q:' .. ARGV[i], ME)
  else
    redis.call('HSET', G .. 'q:' .. ARGV[i], ME, ARGV[i + 1])
  end
end

local removed, more = {}, 0
local over = redis.call('ZRANGEBYSCORE', nodes, '-inf', digits(now), 'LIMIT', 0, 1)[1]
if over then
  if drop(over, 100) then removed[1] = over end
  more = redis.call('ZCOUNT', nodes, '-inf', digits(now)) > 0 and 1 or 0
end

local duty = redis.call('GET', G .. 'duty')
if not duty or not redis.call('ZSCORE', nodes, duty) then
  duty = ME
  redis.call('SET', G .. 'duty', duty)
  -- It may have what the one before had not.
  for _, queue in ipairs(redis.call('SMEMBERS', G .. 'parked')) do redis.call('RPUSH', G .. 'turns', queue) end
  redis.call('DEL', G .. 'parked')
end
local swept = redis.call('HEXISTS', P .. 'meta', 'swept')
return { 'ok', meta[2], 1 - swept, duty == ME and 1 or 0, removed, more }
