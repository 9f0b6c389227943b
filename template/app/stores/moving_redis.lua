-- The steps of a move, each of them atomic. What the keys hold: redis_steps.lua.
--
-- ARGV 1 is the step. A step that merges returns how much of it was new.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function whole(number) return string.format('%.0f', number) end
local function instant(number) return string.format('%.6f', number) end

local steps = {}

-- KEYS the memo.  ARGV 2 the identity where there is none yet  3 seconds to keep it
function steps.identity()
  redis.call('HSETNX', KEYS[1], 'value', ARGV[2])
  redis.call('HSET', KEYS[1], 'expires_at', instant(now + ARGV[3]))
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  return redis.call('HGET', KEYS[1], 'value')
end

-- KEYS leases, reservations.  For each: day, amount, claim or '', dispatched, ends in, subjects …
function steps.leases()
  local found = {}
  local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    local facts = cmsgpack.unpack(redis.call('HGET', KEYS[2], all[i]))
    found[#found + 1] = { facts.day, whole(facts.amount), facts.claim or '',
      facts.dispatched and 1 or 0, instant(all[i + 1] - now), unpack(facts.subjects) }
  end
  return found
end

-- KEYS spend, days.  ARGV 2 day  3 its number  4 '1' when it was warned of, then counters and amounts
function steps.day()
  local day, new = ARGV[2], 0
  for i = 5, #ARGV, 2 do
    local counter = day .. ' ' .. ARGV[i]
    local total = day .. ' ' .. string.match(ARGV[i], '^from:[^:]*:(.*)$')
    local more = tonumber(ARGV[i + 1]) - (redis.call('HGET', KEYS[1], counter .. ' settled') or 0)
    if more > 0 then
      new = new + 1
      for _, field in ipairs({ counter, total }) do
        redis.call('HINCRBY', KEYS[1], field .. ' settled', whole(more))
        redis.call('ZADD', KEYS[2], 'NX', ARGV[3], field)
      end
    end
  end
  if ARGV[4] == '1' then new = new + redis.call('HSETNX', KEYS[1], day .. ' app warned', 1) end
  return new
end

-- KEYS counters, their ages, totals, their ages.  ARGV 2 seconds to keep them, then fields and values
function steps.counts()
  local new = 0
  for i = 3, #ARGV, 2 do
    local field = ARGV[i]
    local more = tonumber(ARGV[i + 1]) - (redis.call('HGET', KEYS[1], field) or 0)
    if more > 0 then
      new = new + 1
      for k = 1, 3, 2 do
        redis.call('HINCRBY', KEYS[k], field, whole(more))
        redis.call('ZADD', KEYS[k + 1], string.match(field, '^%d+'), field)
      end
    end
  end
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[2]) end
  return new
end

-- KEYS the claim.  ARGV 2 expires in  3 keep  4 fingerprint  5 status  6 media type  7 complete
-- 8 the body, where there is one
function steps.key()
  local found = redis.call('HMGET', KEYS[1], 'fingerprint', 'status', 'expires_at')
  if found[1] and not (found[2] and tonumber(found[3]) <= now) then return 0 end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[4], 'reservation', '', 'keep', ARGV[3],
    'status', ARGV[5], 'media_type', ARGV[6], 'complete', ARGV[7],
    'expires_at', instant(now + ARGV[2]))
  if ARGV[8] then redis.call('HSET', KEYS[1], 'body', ARGV[8]) end
  redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]))
  return 1
end

-- KEYS the memo.  ARGV 2 expires in  3 the value
function steps.memo()
  local ends = redis.call('HGET', KEYS[1], 'expires_at')
  if ends and tonumber(ends) > now then return 0 end
  redis.call('HSET', KEYS[1], 'value', ARGV[3], 'expires_at', instant(now + ARGV[2]))
  redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]))
  return 1
end

-- KEYS entries, until when they are kept.  ARGV 2 and 3 the first and last place
function steps.entries()
  local found = {}
  local keys = redis.call('ZRANGE', KEYS[2], ARGV[2], ARGV[3], 'WITHSCORES')
  for i = 1, #keys, 2 do
    local value, times, seen = unpack(cmsgpack.unpack(redis.call('HGET', KEYS[1], keys[i])))
    found[#found + 1] = { keys[i], value, whole(times), instant(now - seen), instant(keys[i + 1] - now) }
  end
  return found
end

-- KEYS entries, until when they are kept.  ARGV 2 expires in  3 key  4 value  5 times  6 age
function steps.entry()
  local ends, new_end = redis.call('ZSCORE', KEYS[2], ARGV[3]), now + ARGV[2]
  if ends and tonumber(ends) > now then return 0 end
  redis.call('HSET', KEYS[1], ARGV[3], cmsgpack.pack({ ARGV[4], tonumber(ARGV[5]), instant(now - ARGV[6]) }))
  redis.call('ZADD', KEYS[2], instant(new_end), ARGV[3])
  for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) < ARGV[2] + 1 then redis.call('EXPIRE', key, math.ceil(ARGV[2]) + 1) end
  end
  return 1
end

return steps[ARGV[1]]()
