-- Every step of the Redis store, each of them atomic: Redis runs one script at a time, to its end.
--
-- KEYS  1 reservations  2 leases  3 ended  4 spend  5 days, then those of the step at hand.
-- ARGV  1 step  2 the time in tests, or ''  3 the step's facts as JSON  4 … bytes to keep
--
-- reservations  hash   reservation -> its facts, packed
-- leases        zset   reservation -> the instant at which its lease ends
-- ended         zset   reservation -> the instant at which its lease ended: it may be settled late
-- spend         hash   '<day> <subject> settled|reserved', and '<day> app warned'
-- days          zset   '<day> <subject>' -> the day's number, so that old days can be found
-- a claim       hash   fingerprint, reservation, keep; with its answer: status, media_type, body,
--                      complete, expires_at
-- a rate        string {instant, admissions that stop counting then, …}, packed: one pair a second
--
-- Amounts are nano-dollars, far below 2^53, so Lua's numbers hold them exactly; instants are Unix
-- times in seconds. Each key expires by itself some time after its content has.
local RESERVATIONS, LEASES, ENDED, SPEND, DAYS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ask = cjson.decode(ARGV[3])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function whole(number) return string.format('%.0f', number) end
local function instant(number) return string.format('%.6f', number) end

-- The day of `now` among the three that the app has worked out; nil when its clock is elsewhere.
local function today()
  for _, day in ipairs(ask.days) do
    if now >= day.begins and now < day.ends then return day end
  end
end

local function money(day, subject, kind)
  return tonumber(redis.call('HGET', SPEND, day .. ' ' .. subject .. ' ' .. kind) or 0)
end

local function move(facts, released, added)
  for _, subject in ipairs(facts.subjects) do
    local field = facts.day .. ' ' .. subject
    redis.call('HINCRBY', SPEND, field .. ' reserved', whole(0 - released))
    redis.call('HINCRBY', SPEND, field .. ' settled', whole(added))
  end
end

-- The day's settled money when its 80 % are reached for the first time.
local function warning(day, limit)
  local settled = money(day, 'app', 'settled')
  if settled * 100 < limit * ask.warn_at then return false end
  if redis.call('HSETNX', SPEND, day .. ' app warned', 1) == 0 then return false end
  return { day, whole(settled), whole(limit) }
end

-- End a reservation's claim: with an answer it is kept, without one the key is free again.
local function finish(key, reservation, answer, body)
  if redis.call('HGET', key, 'reservation') ~= reservation then return end
  if not answer then
    redis.call('DEL', key)
    return
  end
  local keep = tonumber(redis.call('HGET', key, 'keep'))
  redis.call('HSET', key, 'status', answer.status, 'media_type', answer.media_type,
    'complete', answer.complete and 1 or 0, 'expires_at', instant(now + keep))
  if body then redis.call('HSET', key, 'body', body) else redis.call('HDEL', key, 'body') end
  redis.call('EXPIRE', key, keep)
end

-- A reservation's facts; nil where the server has forgotten them (it evicts keys, against its
-- promise), and then its lease is forgotten too: it must not hold up the others.
local function facts_of(reservation)
  local packed = redis.call('HGET', RESERVATIONS, reservation)
  if packed then return cmsgpack.unpack(packed) end
  redis.call('ZREM', LEASES, reservation)
end

local function runs(reservation)
  local lease = redis.call('ZSCORE', LEASES, reservation)
  return lease and tonumber(lease) > now
end

-- End a lease whose time is over; the facts of its reservation, or nil when it still runs.
local function expire(reservation, claim_key)
  local lease = redis.call('ZSCORE', LEASES, reservation)
  if not lease or tonumber(lease) > now then return end
  local facts = facts_of(reservation)
  if not facts then return end
  -- Once a provider may have been called the outcome is unknown: the charge is kept.
  local charged = facts.dispatched and facts.amount or 0
  move(facts, facts.amount, charged)
  facts.charged = charged
  redis.call('HSET', RESERVATIONS, reservation, cmsgpack.pack(facts))
  redis.call('ZREM', LEASES, reservation)
  redis.call('ZADD', ENDED, lease, reservation)
  if claim_key then
    local unknown = { status = 504, media_type = 'application/json', complete = false }
    finish(claim_key, reservation, facts.dispatched and unknown, nil)
  end
  return facts
end

-- A rate's {instant, admissions, …} that still count, their sum, and the wait until one more may.
local function rate(key, quota, window)
  local packed, ends, used = redis.call('GET', key), {}, 0
  if packed then
    local all = cmsgpack.unpack(packed)
    for i = 1, #all, 2 do
      -- Beyond two windows lies what was counted before the clock was set back: it is forgotten.
      if all[i] > now and all[i] <= now + 2 * window then
        ends[#ends + 1], ends[#ends + 2] = all[i], all[i + 1]
        used = used + all[i + 1]
      end
    end
  end
  local wait, left, i = 0, used, 1
  while left >= quota and ends[i] do
    wait, left, i = ends[i] - now, left - ends[i + 1], i + 2
  end
  return { key = key, quota = quota, window = window, ends = ends, used = used, wait = wait }
end

local function count(counter)
  local ends, last = counter.ends, now + counter.window
  local second, at = math.floor(last), #ends + 1
  -- Pairs stay in order also when the clock was set back a little.
  while at > 1 and math.floor(ends[at - 2]) > second do at = at - 2 end
  if at > 1 and math.floor(ends[at - 2]) == second then
    ends[at - 2], ends[at - 1] = math.max(ends[at - 2], last), ends[at - 1] + 1
  else
    table.insert(ends, at, last)
    table.insert(ends, at + 1, 1)
  end
  counter.used = counter.used + 1
  redis.call('SET', counter.key, cmsgpack.pack(ends), 'EX', 2 * counter.window + 1)
end

local function rate_states(counters)
  local states = {}
  for _, counter in ipairs(counters) do
    states[#states + 1] = math.max(counter.quota - counter.used, 0)
    local oldest = counter.ends[1] and counter.ends[1] - now or 0
    states[#states + 1] = instant(counter.wait > 0 and counter.wait or oldest)
  end
  return states
end

-- What becomes of a request whose key was claimed before; nil when the key is free.
local function claimed(key, fingerprint)
  local found = redis.call('HMGET', key, 'fingerprint', 'reservation', 'status', 'media_type',
    'body', 'complete', 'expires_at', 'keep')
  local known, owner, status, media_type, body, complete, ends, keep = unpack(found, 1, 8)
  if not known then return end
  if not status then
    local facts = redis.call('HGET', RESERVATIONS, owner)
    -- A claim without its reservation: the server has forgotten the one and not the other.
    if not facts then return end
    if not runs(owner) then
      -- Its owner is dead. Nothing was done, or nobody knows and it is not run again; only `reap`
      -- books that charge, since only `reap` can give the warning that it may cause.
      if not cmsgpack.unpack(facts).dispatched then
        expire(owner, key)
        return
      end
      status, media_type, complete, ends = 504, 'application/json', 0, now + keep
    end
  elseif tonumber(ends) <= now then
    redis.call('DEL', key)
    return
  end
  if known ~= fingerprint then return { 'key_reused' } end
  if not status then return { 'in_progress' } end
  return { 'replay', tonumber(status), media_type, body, tonumber(complete), instant(ends - now) }
end

local steps = {}

-- KEYS 6 … the rates', then the claim's. Check everything, then write everything.
function steps.admit()
  local day, claim_key = today(), ask.claim and KEYS[6 + #ask.rates]
  if not day then return { 'elsewhere', instant(now) } end
  if ask.deadline and now > ask.deadline then return { 'late', instant(now) } end
  if claim_key then
    local decided = claimed(claim_key, ask.claim.fingerprint)
    if decided then return decided end
  end
  local counters, longest = {}, nil
  for i, asked in ipairs(ask.rates) do
    counters[i] = rate(KEYS[5 + i], asked.quota, asked.window)
    if counters[i].wait > (longest and counters[longest].wait or 0) then longest = i end
  end
  if longest then
    local wait = instant(counters[longest].wait)
    return { 'rate', longest, wait, rate_states(counters) }
  end
  for i, cap in ipairs(ask.caps) do
    local committed = money(day.name, cap.subject, 'settled') + money(day.name, cap.subject, 'reserved')
    if committed + ask.amount > cap.limit then
      return { 'cap', i, instant(day.ends - now), rate_states(counters) }
    end
  end
  for _, counter in ipairs(counters) do count(counter) end
  local subjects, limit = {}, nil
  for i, cap in ipairs(ask.caps) do
    subjects[i] = cap.subject
    if cap.subject == 'app' then limit = cap.limit end
    local field = day.name .. ' ' .. cap.subject
    redis.call('HINCRBY', SPEND, field .. ' reserved', whole(ask.amount))
    redis.call('ZADD', DAYS, 'NX', day.number, field)
  end
  local facts = {
    day = day.name, subjects = subjects, amount = ask.amount, limit = limit,
    claim = ask.claim and ask.claim.key, lease = ask.lease,
  }
  redis.call('HSET', RESERVATIONS, ask.reservation, cmsgpack.pack(facts))
  redis.call('ZADD', LEASES, now + ask.lease, ask.reservation)
  if claim_key then
    redis.call('HSET', claim_key, 'fingerprint', ask.claim.fingerprint,
      'reservation', ask.reservation, 'keep', ask.claim.keep)
  end
  return { 'admitted', instant(now), rate_states(counters) }
end

function steps.dispatch()
  local facts = runs(ask.reservation) and facts_of(ask.reservation)
  if not facts then return 0 end
  facts.dispatched = true
  redis.call('HSET', RESERVATIONS, ask.reservation, cmsgpack.pack(facts))
  return 1
end

function steps.renew()
  local facts = runs(ask.reservation) and facts_of(ask.reservation)
  if not facts then return 0 end
  facts.lease = ask.lease
  redis.call('HSET', RESERVATIONS, ask.reservation, cmsgpack.pack(facts))
  redis.call('ZADD', LEASES, now + ask.lease, ask.reservation)
  return 1
end

-- KEYS 6 the claim's, where there is one.
function steps.settle()
  expire(ask.reservation, KEYS[6]) -- late, whether `due` has noticed or not
  local packed = redis.call('HGET', RESERVATIONS, ask.reservation)
  if not packed then return false end
  local facts = cmsgpack.unpack(packed)
  if facts.charged then
    -- Late: the lease ended and the charge was kept. It may grow, and never shrinks.
    move(facts, 0, math.max(0, ask.cost - facts.charged))
  else
    move(facts, facts.amount, ask.cost)
  end
  redis.call('HDEL', RESERVATIONS, ask.reservation)
  redis.call('ZREM', LEASES, ask.reservation)
  redis.call('ZREM', ENDED, ask.reservation)
  if KEYS[6] then finish(KEYS[6], ask.reservation, ask.answer, ARGV[4]) end
  return warning(facts.day, facts.limit)
end

-- The leases that are over, each with its claim (it is a key, so `expire` must be told of it).
function steps.due()
  local day = today()
  if not day then return { 'elsewhere', instant(now) } end
  -- A lease from before the clock was set back would hold money and key for too long.
  local far = redis.call('ZREVRANGE', LEASES, 0, ask.leases - 1, 'WITHSCORES')
  for i = 1, #far, 2 do
    local facts = facts_of(far[i])
    if facts and tonumber(far[i + 1]) > now + facts.lease then
      redis.call('ZADD', LEASES, now + facts.lease, far[i])
    end
  end
  local gone = redis.call('ZRANGEBYSCORE', ENDED, '-inf', now - ask.keep_ended, 'LIMIT', 0, ask.rows)
  for _, reservation in ipairs(gone) do
    redis.call('HDEL', RESERVATIONS, reservation)
    redis.call('ZREM', ENDED, reservation)
  end
  local old = redis.call('ZRANGEBYSCORE', DAYS, '-inf', '(' .. day.number - ask.keep_days, 'LIMIT', 0, ask.rows)
  for _, field in ipairs(old) do
    redis.call('HDEL', SPEND, field .. ' settled', field .. ' reserved', field .. ' warned')
    redis.call('ZREM', DAYS, field)
  end
  local due, over = {}, redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, ask.leases)
  for _, reservation in ipairs(over) do
    local facts = facts_of(reservation)
    if facts then due[#due + 1] = { reservation, facts.claim or false } end
  end
  local more = #gone == ask.rows or #old == ask.rows or #over == ask.leases
  return { 'due', more and 1 or 0, due }
end

-- KEYS 6 the claim's, where there is one.
function steps.expire()
  local facts = expire(ask.reservation, KEYS[6])
  return facts and warning(facts.day, facts.limit)
end

function steps.spending()
  local day = today()
  if not day then return { 'elsewhere', instant(now) } end
  local settled, reserved = money(day.name, ask.subject, 'settled'), money(day.name, ask.subject, 'reserved')
  return { 'spending', day.name, whole(settled), whole(reserved), instant(day.ends - now) }
end

-- KEYS 6 the memo.
function steps.remember()
  redis.call('HSET', KEYS[6], 'value', ARGV[4], 'expires_at', instant(now + ask.keep))
  redis.call('EXPIRE', KEYS[6], ask.keep)
  return 1
end

function steps.recall()
  local found = redis.call('HMGET', KEYS[6], 'value', 'expires_at')
  return found[1] and tonumber(found[2]) > now and found[1]
end

-- KEYS 6 the incidents: a hash, what -> the instant of the next reminder.
function steps.open_incident()
  local remind_at = redis.call('HGET', KEYS[6], ask.key)
  -- Later than a reminder from now on: noted by a clock that was set back since.
  local noted = tonumber(remind_at or now)
  if noted > now and noted <= now + ask.remind then return 0 end
  redis.call('HSET', KEYS[6], ask.key, instant(now + ask.remind))
  return 1
end

function steps.close_incident() return redis.call('HDEL', KEYS[6], ask.key) end

-- KEYS 6 and 7, 8 and 9: the values and the ages of a span. A value's field is '<number> <label>',
-- where the number is that of the minute or hour since 1970, and its score among the ages.
function steps.count()
  for i, span in ipairs(ask.spans) do
    local values, ages = KEYS[4 + 2 * i], KEYS[5 + 2 * i]
    local number = math.floor(now / span.seconds)
    for label, added in pairs(ask.added) do
      local field = whole(number) .. ' ' .. label
      redis.call('HINCRBY', values, field, whole(added))
      redis.call('ZADD', ages, number, field)
    end
    for _, field in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', '(' .. whole(number - span.keep), 'LIMIT', 0, ask.rows)) do
      redis.call('HDEL', values, field)
      redis.call('ZREM', ages, field)
    end
    redis.call('EXPIRE', values, span.seconds * (span.keep + 1))
    redis.call('EXPIRE', ages, span.seconds * (span.keep + 1))
  end
  return 1
end

-- KEYS 6 the values, 7 the ages. Many values are asked for at once, as many as Lua can pass on.
function steps.counted()
  local number = math.floor(now / ask.span)
  local fields = redis.call('ZRANGEBYSCORE', KEYS[7], '(' .. whole(number - ask.spans), whole(number))
  local found = {}
  for first = 1, #fields, 1000 do
    local last = math.min(first + 999, #fields)
    for i, value in ipairs(redis.call('HMGET', KEYS[6], unpack(fields, first, last))) do
      local at, label = string.match(fields[first + i - 1], '^(%d+) (.*)$')
      found[first + i - 1] = { number - at, label, value }
    end
  end
  return found
end

-- KEYS 6 and 7: a collection's entries, a hash, key -> {value, times, seen at}, packed; and until when
-- each is kept, a zset. Entries that expire together are in the order of their keys.
function steps.collect()
  local entries, ends = KEYS[6], KEYS[7]
  local function forget(keys)
    for _, key in ipairs(keys) do
      redis.call('HDEL', entries, key)
      redis.call('ZREM', ends, key)
    end
  end
  forget(ask.gone)
  forget(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, ask.rows))
  for i, entry in ipairs(ask.entries) do
    local packed, times = redis.call('HGET', entries, entry.key), entry.times
    -- One that has expired may not have been forgotten yet.
    if packed and tonumber(redis.call('ZSCORE', ends, entry.key)) > now then
      times = times + cmsgpack.unpack(packed)[2]
    end
    redis.call('HSET', entries, entry.key, cmsgpack.pack({ ARGV[3 + i], times, instant(now) }))
    redis.call('ZADD', ends, instant(now + ask.keep), entry.key)
  end
  local over = redis.call('ZCARD', ends) - ask.at_most
  if over > 0 then forget(redis.call('ZRANGE', ends, 0, math.min(over, ask.rows) - 1)) end
  local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')
  if last[2] then
    local left = math.max(math.ceil(last[2] - now), 1)
    redis.call('EXPIRE', entries, left)
    redis.call('EXPIRE', ends, left)
  end
  return 1
end

-- KEYS 6 the entries, 7 until when they are kept.
function steps.collected()
  local keys = { ask.key }
  if not ask.key then
    keys = redis.call('ZREVRANGEBYSCORE', KEYS[7], '+inf', '(' .. instant(now), 'LIMIT', 0, ask.at_most)
  end
  local found = {}
  for _, key in ipairs(keys) do
    local packed, kept = redis.call('HGET', KEYS[6], key), redis.call('ZSCORE', KEYS[7], key)
    if packed and kept and tonumber(kept) > now then
      local value, times, seen = unpack(cmsgpack.unpack(packed))
      found[#found + 1] = { key, value, whole(times), instant(math.max(0, now - seen)) }
    end
  end
  return found
end

-- KEYS 6 anything: the server takes a write.
function steps.ping()
  redis.call('SET', KEYS[6], instant(now), 'EX', 60)
  return instant(now)
end

return steps[ARGV[1]]()
