-- SPDX-License-Identifier: MIT
-- Services driven by a program that makes, enters and removes environments by name (podman,
-- apptainer). A backend describes the words; what is the same for all of them is here: whose an
-- environment is, cancelled starts, refusals.

local command = require("farcall.clients.command")
local task = require("farcall.task")

local command_service = {}

-- What a call that starts nothing may take.
command_service.SECONDS = 60
-- For how long a name may be there without what it names, and between two looks, in seconds.
command_service.IN_MAKING = 10
local LOOK_AGAIN = 0.1

---@class farcall.command.Description
---@field programs fun(options: table): string[] names of the program, the best first
---@field install string hint where there is none
---@field setup? string[] prefixes of the program's own variables that it may see
---@field refusals table[] as in farcall.command.Place; one with exists = true: the name is taken
---@field create fun(options: table, ctx: farcall.BackendContext): string[] words that make it
---@field revive? fun(name: string): string[] words that start one that is there
---@field enter fun(name: string, options: table): string[] words before those
---of an exec
---@field remove async fun(service: farcall.command.Service, name: string): true?, farcall.Error?
---@field list async fun(service: farcall.command.Service): table[]?, farcall.Error?
---@field variables? table<string, string> unless set otherwise

---@class farcall.command.Service
---@field private about farcall.command.Description
---@field private program string
---@field private environ string[]
local Service = {}
Service.__index = Service

---@param about farcall.command.Description
---@return farcall.command.Service?
---@return farcall.Error? err
---@nodiscard
function command_service.new(about, options, ctx)
  local program, err = command.find(about.programs(options), ctx.environ, about.install)
  if not program then
    return nil, err
  end
  return setmetatable({
    about = about, program = program, environ = command.environ(ctx.environ, about.setup or {}),
  }, Service)
end

---Runs the program with these words.
---@async
---@param op string
---@param words string[]
---@param seconds? number
---@return {stdout: string, stderr: string}?
---@return farcall.Error? err
function Service:call(op, words, seconds)
  local argv = { self.program }
  command.add(argv, unpack(words))
  local result, err = command.run(argv, self.environ, seconds or command_service.SECONDS)
  if result and result.exit_code ~= 0 then
    return nil, command.refusal(op, result.stderr, self.about.refusals)
  end
  return result, err
end

-- Makes it, or takes the one that the key names.
---@async
local function create_once(self, options, ctx)
  local words = self.about.create(options, ctx)
  local made, err = self:call("start " .. options.image, words, options.start_timeout)
  if made then
    return made
  elseif ctx.key and err.code == "EEXIST" then
    if not self.about.revive then
      return true
    end
    return self:call("start " .. ctx.name, self.about.revive(ctx.name))
  elseif not ctx.key and err.code ~= "EEXIST" then
    -- What was half made is nobody else's.
    self.about.remove(self, ctx.name)
  end
  return nil, err
end

-- A name is taken before there is anything to be started under it, by whoever makes it right now,
-- and after it has gone, by whoever removes it.
---@async
local function create(self, options, ctx)
  local last = task.now() + command_service.IN_MAKING
  while true do
    local made, err = create_once(self, options, ctx)
    if made or not ctx.key or err.kind ~= "lost" or task.now() > last then
      return made, err
    end
    task.sleep(LOOK_AGAIN)
  end
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@param attach? string name of one that is there and is not ours
---@return farcall.Env?
---@return farcall.Error? err
function Service:open(options, ctx, attach)
  local remove = not attach and not ctx.key and function()
    self.about.remove(self, ctx.name)
  end or nil
  if not attach then
    local ok, made, err = pcall(create, self, options, ctx)
    if not ok then
      if remove then
        task.shield(remove)
      end
      error(made, 0)
    elseif not made then
      return nil, err
    end
  end
  local name = attach or ctx.name
  local prefix = { self.program }
  command.add(prefix, unpack(self.about.enter(name, options)))
  local variables = command.variables(options, ctx)
  for variable, value in pairs(self.about.variables or {}) do
    variables[variable] = variables[variable] or value
  end
  return command.env({
    name = name, bare = attach ~= nil, prefix = prefix, environ = self.environ,
    engine_supervisor = ctx.supervisor, variables = variables, cwd = options.cwd,
    grace = options.grace, refusals = self.about.refusals, remove = remove,
  })
end

---Gives a backend its open, list and reap.
---@param backend farcall.Backend
---@param about farcall.command.Description
function command_service.equip(backend, about)
  ---@async
  function backend.open(options, ctx)
    local service, err = command_service.new(about, options, ctx)
    if not service then
      return nil, err
    end
    return service:open(options, ctx)
  end

  ---@async
  function backend.list(options, ctx)
    local service, err = command_service.new(about, options, ctx)
    if not service then
      return nil, err
    end
    return about.list(service)
  end

  ---@async
  function backend.reap(name, options, ctx)
    local service, err = command_service.new(about, options, ctx)
    if not service then
      return nil, err
    end
    return about.remove(service, name)
  end
end

return command_service
