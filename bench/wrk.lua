-- Sends the request in the file of the first argument; what stands for a unique is replaced by the second argument and a number.
-- It prints one line of JSON at the end, latencies in microseconds.
local head, tail, tag
local n = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  tag = args[2]
  local from, to = text:find("%UNIQUE%", 1, true)
  if from then
    head, tail = text:sub(1, from - 1), text:sub(to + 1)
  else
    head = text
  end
end

function request()
  if not tail then
    return head
  end
  n = n + 1
  return head .. tag .. n .. tail
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d}\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
