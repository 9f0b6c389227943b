-- wrk's side of request_cost.py and safeguard_cost.py: what is asked, and one line of JSON when it is over.
-- The callers and addresses vary, as those of a real app do.

local stream, keyed = os.getenv("STREAM") == "1", os.getenv("KEYED") == "1"
local fields, distinct = os.getenv("FIELDS") or "", os.getenv("DISTINCT") == "1"
local callers = tonumber(os.getenv("CALLERS"))
local question = "How is an answer made, in a few sentences?"
local template = string.format(
  '{"messages":[{"role":"user","content":"%s%%s"}],"stream":%s%s}', question, tostring(stream), fields)
local body = string.format(template, "")
local number = 0

function init()
  math.randomseed(os.time())
end

function request()
  number = number + 1
  local caller = number % callers
  local headers = {
    ["Content-Type"] = "application/json",
    ["Authorization"] = string.format("Bearer caller-key-%04d", caller),
    ["X-Forwarded-For"] = string.format("10.0.%d.%d", number % 8, number % 250 + 1),
  }
  if keyed then
    headers["Idempotency-Key"] = string.format("%d-%d", number, math.random(1, 2000000000))
  end
  if distinct then
    body = string.format(template, string.format(" %d-%d", number, math.random(1, 2000000000)))
  end
  return wrk.format("POST", "/v1/chat/completions", headers, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"failed":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, failed,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
