-- The work of wasm/filter for one fixed policy (policy in variants.go), as an
-- operator would write it in Envoy's Lua: the same headers read, checked and
-- written. Two things are cheaper here: the group's name is a hash of a few
-- operations, since Envoy's Lua has no md5, and random numbers are not seeded.

local function foreign(member)
  local key, value = string.match(member, "^[ \t]*([%w!#$&'*+.^_`|~-]+)[ \t]*=[ \t]*([^%s\",;\\]*)[ \t]*$")
  if not key then -- with properties
    key, value = string.match(member, "^[ \t]*([%w!#$&'*+.^_`|~-]+)[ \t]*=[ \t]*([^%s\",;\\]*)[ \t]*;[%w=; \t.-]*$")
  end
  if not key or string.find(value, "[\128-\255]") then return false end
  if string.find(value, "%%") and string.find(value, "%%%X") then return false end
  return string.lower(string.sub(key, 1, 8)) ~= "traffic."
end

local function members(list, max_bytes, bytes)
  local out, n = {}, 2
  for member in string.gmatch(list, "[^,]+") do
    if n == 64 then break end
    if foreign(member) and bytes + 1 + #member <= max_bytes then
      n, bytes = n + 1, bytes + 1 + #member
      out[#out + 1] = member
    end
  end
  return out
end

local function hash(s)
  local h = 5381
  for i = 1, #s do h = (h * 33 + string.byte(s, i)) % 4294967296 end
  return string.format("%06x", h % 16777216)
end

local function hex32() return math.random(0, 4294967295) end

function envoy_on_request(handle)
  local headers = handle:headers()
  local color, env, tenant = "00000000", "prod", "public"

  if headers:get("x-env") == "canary" then
    color, env = "1a93b59c", "canary"
  else
    local cookie = headers:get("cookie")
    if cookie and string.find("; " .. cookie .. ";", "; env=canary;", 1, true) then
      color, env = "1a93b59c", "canary"
    end
  end

  local host = string.lower(headers:get(":authority") or "")
  if string.sub(host, 1, 7) == "search." then
    tenant = "search"
  elseif string.sub(host, 1, 8) == "payment." then
    tenant = "payment"
  end
  if headers:get("x-traffic-claims") then headers:remove("x-traffic-claims") end

  local flags, state = 3, nil
  local parent = headers:get("traceparent")
  if parent then
    local version, trace, span, f = string.match(parent, "^(%x%x)%-([0-9a-f]+)%-([0-9a-f]+)%-(%x%x)$")
    if version and version ~= "ff" and #trace == 32 and #span == 16
      and string.find(trace, "[^0]") and string.find(span, "[^0]") then
      flags = tonumber(f, 16) % 2 + 2
      state = "tg=" .. trace .. "-" .. span
    end
  end
  local list = headers:get("tracestate")
  if state then
    if list and #state + 1 + #list <= 512 and not string.find(list, "[^%w=,@_*/ -]") then
      state = state .. "," .. list
    end
    headers:replace("tracestate", state)
  elseif list then
    headers:remove("tracestate")
  end
  headers:replace("traceparent", string.format("00-%s%08x%08x%08x-%08x%08x-%02x",
    color, hex32(), hex32(), hex32(), hex32(), hex32(), flags))

  local baggage = "traffic.env=" .. env .. ",traffic.tenant=" .. tenant
  local client = headers:get("baggage")
  if client then
    local kept = members(client, 8192, #baggage)
    if #kept > 0 then baggage = baggage .. "," .. table.concat(kept, ",") end
  end
  headers:replace("baggage", baggage)
  headers:replace("x-traffic-group", hash(color .. "|" .. env .. "|" .. tenant))
end
