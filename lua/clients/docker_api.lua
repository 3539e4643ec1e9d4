-- SPDX-License-Identifier: MIT
-- The Docker Engine API, as far as environments need it; Podman's service speaks it, too. What the
-- daemon says is checked before it is believed: sizes, types, statuses. A request is sent again
-- only if sending it twice does no more than sending it once.
-- https://docs.docker.com/engine/api/v1.41/

local cjson = require("cjson.safe")
local docker_stream = require("farcall.clients.docker_stream")
local errors = require("farcall.errors")
local http = require("farcall.clients.http")
local task = require("farcall.task")

local docker_api = {}

-- Exec with a working directory came with 1.35 (Docker 18.02). Newer versions than the last one
-- known are asked to speak as that.
local OLDEST, NEWEST = { 1, 35 }, { 1, 43 }

local CALL_SECONDS = 120
local CONNECT_SECONDS = 15
local MAX_MESSAGE = 2000

local json = cjson.new()
json.decode_max_depth(64)

---@class farcall.DockerApi
---@field version string "1.41"
---@field server string what the daemon calls itself
---@field patience number seconds that one answer may take
local Api = {}
Api.__index = Api

local function escape(text)
  return (text:gsub("[^%w%-._~]", function(char)
    return ("%%%02X"):format(char:byte())
  end))
end

local function query_of(query)
  local names, parts = {}, {}
  for name in pairs(query or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    parts[i] = name .. "=" .. escape(query[name])
  end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

-- The daemon's own words, on one line.
local function message_of(response)
  local doc = json.decode(response.body)
  local text = type(doc) == "table" and type(doc.message) == "string" and doc.message
    or response.body
  text = text:gsub("[%c%s]+", " "):gsub("^ ", ""):gsub(" $", ""):sub(1, MAX_MESSAGE)
  return text ~= "" and text or "status " .. response.status
end

local KIND_OF_STATUS = {
  [400] = "config", [401] = "denied", [403] = "denied", [404] = "not_found",
  [409] = "unavailable", [501] = "unsupported",
}

local function refusal(op, response)
  local kind = KIND_OF_STATUS[response.status] or response.status < 400 and "protocol"
    or "unavailable"
  return errors.new(kind, op, message_of(response), { code = tostring(response.status) })
end

-- Why the daemon cannot be talked to.
local function no_daemon(self, op, err)
  local where = self.where
  if err.code == "EACCES" or err.code == "EPERM" then
    return errors.new("denied", op, where .. ": this user may not use it",
      { code = err.code, hint = "be in its group (docker), or run rootless Podman" })
  elseif err.code == "ENOENT" or err.code == "ECONNREFUSED" then
    return errors.new("unavailable", op, where .. ": no daemon answers",
      { code = err.code, hint = "start Docker, or say where it is with the option socket" })
  end
  return errors.new(err.kind, op, err.msg, { code = err.code, cause = err })
end

-- One exchange. again: sending it twice is harmless.
---@async
local function exchange(self, op, method, path, options)
  local body = options.body and json.encode(options.body)
  local request = {
    url = self.base .. path .. query_of(options.query), method = method, body = body,
    headers = body and { "Content-Type: application/json" } or nil,
    timeout = self.patience, fresh = not options.again,
  }
  local response, err = self.http:fetch(request)
  if not response and options.again and err.code == "ECONNRESET" then
    response, err = self.http:fetch(request)
  end
  if not response then
    return nil, no_daemon(self, op, err)
  end
  return response
end

-- A call whose answer is a document, or nothing. `expect` lists the statuses that mean success;
-- `container` comes after /containers/ in the path.
---@async
local function call(self, op, method, path, options)
  if options.container then
    -- What the daemon takes for one (its RestrictedNamePattern), so that no name is a path.
    if not options.container:find("^[%w][%w_.%-]*$") then
      return nil, errors.new("config", op, ("%q is no container's name"):format(options.container))
    end
    path = "/containers/" .. options.container .. path
  end
  local response, err = exchange(self, op, method, "/v" .. self.version .. path, options)
  if not response then
    return nil, err
  end
  if not options.expect[response.status] then
    return nil, refusal(op, response)
  end
  if options.expect[response.status] == "nothing" then
    return {}, nil, response.status
  end
  local doc = json.decode(response.body)
  if type(doc) ~= "table" then
    return nil, errors.new("protocol", op, "the answer is not a JSON document")
  end
  return doc, nil, response.status
end

-- A field of a document that must be there with this type; nested ones by dots.
local function field(doc, path, kind)
  local value = doc
  for name in path:gmatch("[^.]+") do
    if type(value) ~= "table" then
      return nil
    end
    value = value[name]
  end
  if type(value) == kind then
    return value
  end
  return nil
end

local function wrong(op, path)
  return errors.new("protocol", op, ("the daemon's answer has no proper %s"):format(path))
end

local function parse_version(text)
  local major, minor = (text or ""):match("^(%d%d?)%.(%d%d?%d?)$")
  return major and { tonumber(major), tonumber(minor) } or nil
end

local function older(one, other)
  return one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
end

---@async
local function negotiate(self)
  local op = "docker"
  local response, err = exchange(self, op, "GET", "/_ping", { again = true })
  if not response then
    return nil, err
  end
  if response.status ~= 200 then
    return nil, refusal(op, response)
  end
  local theirs = parse_version(response.headers["api-version"])
  if not theirs then
    return nil, errors.new("protocol", op, self.where .. " does not speak the Docker Engine API")
  end
  if older(theirs, OLDEST) then
    return nil, errors.new("unsupported", op, ("API %d.%d is too old: %d.%d is needed")
      :format(theirs[1], theirs[2], OLDEST[1], OLDEST[2]))
  end
  local ours = older(theirs, NEWEST) and theirs or NEWEST
  self.version = ("%d.%d"):format(ours[1], ours[2])
  self.server = (response.headers.server or ""):sub(1, 200)
  return true
end

---@class farcall.docker_api.Options
---@field socket string a path, or tcp://host:port, http://host:port
---@field patience? number seconds that one answer may take (120)

---Connects and agrees on a version.
---@async
---@param options farcall.docker_api.Options
---@return farcall.DockerApi?
---@return farcall.Error? err
---@nodiscard
function docker_api.connect(options)
  local where = options.socket:gsub("^unix://", "")
  local defaults = { connect_timeout = CONNECT_SECONDS }
  local base = "http://docker"
  if where:sub(1, 1) == "/" then
    defaults.unix_path = where
  else
    base = where:gsub("^tcp://", "http://"):gsub("/$", "")
    if not base:find("^http://[^/%s]+$") then
      return nil, errors.new("config", "docker", where .. ": neither a path nor tcp://HOST:PORT")
    end
  end
  local client, err = http.new(defaults)
  if not client then
    return nil, err
  end
  local self = setmetatable({
    http = client, base = base, where = where, patience = options.patience or CALL_SECONDS,
  }, Api)
  local ok, agreed, failure = pcall(negotiate, self)
  if not ok or not agreed then
    client:close()
  end
  if not ok then
    error(agreed, 0)
  elseif not agreed then
    return nil, failure
  end
  return self
end

---Creates a container. Kind "unavailable" with code "409": the name is taken.
---@async
---@param name string
---@param description table as the API has it
---@return string? id
---@return farcall.Error? err
---@nodiscard
function Api:create_container(name, description)
  local op = "create container"
  local doc, err = call(self, op, "POST", "/containers/create", {
    query = { name = name }, body = description, expect = { [201] = true },
  })
  if not doc then
    return nil, err
  end
  local id = field(doc, "Id", "string")
  if not id or not id:find("^%x+$") then
    return nil, wrong(op, "Id")
  end
  return id
end

---Starts a container; one that runs already is started, too.
---@async
---@param id string or name
---@return boolean?
---@return farcall.Error? err
function Api:start_container(id)
  local doc, err = call(self, "start container", "POST", "/start",
    { container = id, again = true, expect = { [204] = "nothing", [304] = "nothing" } })
  return doc and true, err
end

---@class farcall.docker_api.Container
---@field id string
---@field name string
---@field running boolean
---@field image string what it was created from
---@field image_id string
---@field labels table<string, string>

local function labels_of(labels)
  local list = {}
  for name, value in pairs(type(labels) == "table" and labels or {}) do
    if type(name) == "string" and type(value) == "string" then
      list[name] = value
    end
  end
  return list
end

---@async
---@param id string or name
---@return farcall.docker_api.Container?
---@return farcall.Error? err kind "not_found": there is none
---@nodiscard
function Api:inspect_container(id)
  local op = "inspect container"
  local doc, err = call(self, op, "GET", "/json",
    { container = id, again = true, expect = { [200] = true } })
  if not doc then
    return nil, err
  end
  local container = {
    id = field(doc, "Id", "string"), name = field(doc, "Name", "string"),
    running = field(doc, "State.Running", "boolean"), image = field(doc, "Config.Image", "string"),
    labels = labels_of(field(doc, "Config.Labels", "table")),
  }
  for _, name in ipairs({ "id", "name", "running", "image" }) do
    if container[name] == nil then
      return nil, wrong(op, name)
    end
  end
  container.name = container.name:gsub("^/", "")
  return container
end

---Removes a container with its anonymous volumes, killing what runs in it. Gone already is success.
---@async
---@param id string or name
---@return boolean?
---@return farcall.Error? err
function Api:remove_container(id)
  local doc, err = call(self, "remove container", "DELETE", "", {
    container = id, again = true, query = { force = "1", v = "1" },
    expect = { [204] = "nothing", [200] = "nothing", [404] = "nothing" },
  })
  local patience = 0
  -- Somebody else is removing it: it is gone in a moment.
  while not doc and err.code == "409" and patience < 100 do
    patience = patience + 1
    task.sleep(0.1)
    local there, why = self:inspect_container(id)
    if not there then
      return why.kind == "not_found" or nil, why.kind ~= "not_found" and why or nil
    end
  end
  return doc and true, err
end

---Containers that have a label, running or not.
---@async
---@param label string
---@return {name: string, labels: table<string, string>}[]?
---@return farcall.Error? err
---@nodiscard
function Api:list_containers(label)
  local op = "list containers"
  local doc, err = call(self, op, "GET", "/containers/json", {
    again = true, expect = { [200] = true },
    query = { all = "1", filters = json.encode({ label = { label } }) },
  })
  if not doc then
    return nil, err
  end
  local list = {}
  for _, item in ipairs(doc) do
    local names = field(item, "Names", "table")
    local name = names and type(names[1]) == "string" and names[1]:gsub("^/", "")
    if not name then
      return nil, wrong(op, "Names")
    end
    list[#list + 1] = { name = name, labels = labels_of(item.Labels) }
  end
  return list
end

---Prepares an exec. An exec that is never started costs the daemon a little memory, no more.
---@async
---@param container string
---@param description table as the API has it
---@return string? id
---@return farcall.Error? err
---@nodiscard
function Api:create_exec(container, description)
  local op = "exec"
  local doc, err = call(self, op, "POST", "/exec",
    { container = container, body = description, expect = { [201] = true } })
  if not doc then
    return nil, err
  end
  local id = field(doc, "Id", "string")
  if not id or not id:find("^%x+$") then
    return nil, wrong(op, "Id")
  end
  return id
end

---Starts an exec and takes its connection over.
---@async
---@param id string
---@return farcall.DockerStream?
---@return farcall.Error? err
---@nodiscard
function Api:start_exec(id)
  local op = "exec"
  local url = ("%s/v%s/exec/%s/start"):format(self.base, self.version, id)
  local fd, err = self.http:connect({ url = url })
  if not fd then
    return nil, no_daemon(self, op, err)
  end
  local body = json.encode({ Detach = false, Tty = false })
  local request = table.concat({
    "POST " .. url:match("^http://[^/]+(.*)$") .. " HTTP/1.1",
    "Host: " .. self.base:match("^http://(.*)$"), "Connection: Upgrade", "Upgrade: tcp",
    "Content-Type: application/json", "Content-Length: " .. #body, "", body,
  }, "\r\n")
  local stream, failure, response = task.timeout(self.patience, docker_stream.open, fd, request)
  if not stream then
    return nil, failure or refusal(op, response)
  end
  return stream
end

---@class farcall.docker_api.Exec
---@field running boolean
---@field exit_code? integer 0 to 255, once it has ended
---@field pid integer on the engine's machine; 0 when it was never started

---@async
---@param id string
---@return farcall.docker_api.Exec?
---@return farcall.Error? err
---@nodiscard
function Api:inspect_exec(id)
  local op = "inspect exec"
  local doc, err = call(self, op, "GET", "/exec/" .. id .. "/json",
    { again = true, expect = { [200] = true } })
  if not doc then
    return nil, err
  end
  local running = field(doc, "Running", "boolean")
  local pid = field(doc, "Pid", "number") or 0
  local code = field(doc, "ExitCode", "number")
  if running == nil then
    return nil, wrong(op, "Running")
  end
  if code and (code % 1 ~= 0 or code < 0 or code > 255) then
    code = nil
  end
  return { running = running, pid = pid, exit_code = not running and code or nil }
end

---Lets go of the connections. Idempotent.
function Api:close()
  self.http:close()
end

return docker_api
