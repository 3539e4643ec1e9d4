-- SPDX-License-Identifier: MIT
-- An honest runner of which not everything arrives as it was sent: whatever that breaks, it ends
-- with an error that has a kind, and what was started ends.

local engines = require("spec.support.engines")
local errors = require("farcall.errors")
local helper = require("spec.helper")
local runner = require("farcall.clients.runner")
local task = require("farcall.task")

local CASES, AT_ONCE = 200, 16

-- The same numbers on every machine.
local function randomness(seed)
  local state = seed * 7919 + 12345
  local function random(low, high)
    state = (state * 16807) % 2147483647
    return low + state % (high - low + 1)
  end
  random(0, 1)
  return random
end

local function mutate(random, bytes, at)
  local before, after = bytes:sub(1, at - 1), bytes:sub(at + 1)
  local what = random(1, 5)
  if what == 1 then
    return before .. string.char(random(0, 255)) .. after
  elseif what == 2 then
    return before .. after
  elseif what == 3 then
    return bytes:sub(1, at) .. bytes:sub(math.max(1, at - random(0, 30)))
  elseif what == 4 then
    return before .. ("\255"):rep(random(1, 40)) .. after
  end
  return before .. string.char(bit.bxor(bytes:byte(at), bit.lshift(1, random(0, 7)))) .. after
end

-- This machine, whose next exec says something else once: beyond its hello, so many bytes on.
local function environment(one, random)
  local inner = assert(one:environment("local")).inner
  local env = setmetatable({}, { __index = inner })
  function env.start(_, spec)
    local process, err = inner:start(spec)
    if not process then
      return nil, err
    end
    local read, left = process.read, nil
    rawset(process, "read", function(self, max)
      local stream, bytes = read(self, max)
      if stream ~= "out" or not random then
        return stream, bytes
      end
      local from = 1
      if not left then
        from = select(2, bytes:find("hello [^\n]*\n"))
        if not from then
          return stream, bytes
        end
        from, left = from + 1, random(1, 330)
      end
      local size = #bytes - from + 1
      if left >= 1 and left <= size then
        bytes = mutate(random, bytes, from + left - 1)
      end
      left = left - size
      return stream, bytes
    end)
    return process
  end
  return env
end

-- All that a run does. Returns what it has read.
local function work(one)
  local directory, err = one:directory({ "/tmp" })
  if not directory then
    return nil, err
  end
  local listener, done, process, status
  listener, err = one:listen(directory.path .. "/socket", function(io)
    io:close()
  end)
  if not listener then
    return nil, err
  end
  done, err = one:put(directory.path .. "/file", "text", 384)
  if not done then
    return nil, err
  end
  process, err = one:exec({
    argv = { "sh", "-c", "cat; echo said >&2" }, tree = "subreaper", grace = 1, stdin = "fine\n",
  })
  if not process then
    return nil, err
  end
  local said = ""
  for stream, bytes in function()
    return process:read(4096)
  end do
    said = said .. (stream == "out" and bytes or "")
  end
  status, err = process:wait()
  directory.close()
  return status and said, err
end

describe("an honest runner whose words are mutated on their way", function()
  it("ends with an error or without, and all that it started ends", function()
    engines.with({}, function(engine, cfg)
      local function bring(random)
        return runner.start(environment(engine, random), {
          dir = cfg.runner_dir, forms = { "c" }, grace = 0, here = true,
        })
      end
      local kinds, wrong = {}, {}
      local function try(seed)
        local one = assert(bring(seed > 0 and randomness(seed) or nil))
        local working = task.spawn(work, one)
        helper.eventually(function()
          return working:done()
        end, 3)
        -- It waits for what was swallowed: a run ends by its deadline.
        local late = not working:done()
        one:close()
        if not helper.eventually(function()
          return working:done()
        end, 60) then
          wrong[#wrong + 1] = "it hangs: seed " .. seed
          return
        end
        local ok, said, err = working:join()
        if not ok or not said and not errors.is(err) then
          wrong[#wrong + 1] = ("seed %d: %s"):format(seed, tostring(ok and err or said))
        end
        local kind = late and "late" or said == "fine\n" and "fine" or said and "other" or err.kind
        kinds[kind] = (kinds[kind] or 0) + 1
      end
      try(0)
      assert.same({ fine = 1 }, kinds)
      local seed = 0
      local workers = {}
      for i = 1, AT_ONCE do
        workers[i] = task.spawn(function()
          while seed < CASES do
            seed = seed + 1
            try(seed)
          end
        end)
      end
      for _, worker in ipairs(workers) do
        local ok, failure = worker:join()
        assert(ok, tostring(failure))
      end
      assert.same({}, wrong)
      assert.is_true((kinds.protocol or 0) > CASES / 8)
      -- The engine is as before.
      kinds = {}
      try(0)
      assert.same({ fine = 1 }, kinds)
    end)
  end)
end)
