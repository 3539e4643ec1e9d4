-- SPDX-License-Identifier: MIT
-- What is there to choose from: backends, policies, tools and stub templates, built in or the
-- operator's, loaded when first asked for, with the configuration's options.

local errors = require("farcall.errors")
local plugin = require("farcall.plugin")
local schema = require("farcall.schema")

---@class farcall.Catalog
local catalog = {}
catalog.__index = catalog

---@param cfg farcall.Config
---@return farcall.Catalog
function catalog.new(cfg)
  return setmetatable({ cfg = cfg, backends = {} }, catalog)
end

---The backend of this name with the options that count: the configuration's, then the job's.
---@param name? string of a configured backend, or of a backend file; the default one when absent
---@param overrides? table<string, any>
---@return {name: string, backend: farcall.Backend, options: table}?
---@return farcall.Error? err
---@nodiscard
function catalog:backend(name, overrides)
  name = name or self.cfg.default_backend or "local"
  local configured = self.cfg.backends[name]
  local kind = configured and configured.use or name
  local backend = self.backends[kind]
  if not backend then
    local path, err = plugin.find("backend", kind, self.cfg.backend_path)
    if path then
      backend, err = plugin.load("backend", path)
    end
    if not backend then
      return nil, err
    end
    self.backends[kind] = backend
  end
  local values = {}
  for key, value in pairs(configured and configured.options or {}) do
    values[key] = value
  end
  for key, value in pairs(overrides or {}) do
    values[key] = value
  end
  local options, err = schema.options(backend.options or {}, values, "backend " .. name)
  if not options then
    return nil, err
  end
  if backend.check then
    local fine, problem = backend.check(options)
    if not fine then
      return nil, errors.is(problem) and problem
        or errors.new("config", "backend " .. name, tostring(problem))
    end
  end
  return { name = name, backend = backend, options = options }
end

---The stub template for a job: by language, else by the file's extension, else by the first line.
---@param job farcall.Job
---@return farcall.StubTemplate?
---@return farcall.Error? err
---@nodiscard
function catalog:template(job)
  local language = job.language
  local extension = job.filename and job.filename:match("%.(%w+)$")
  if not language and extension then
    for _, entry in ipairs(plugin.all("stub", self.cfg.stub_path)) do
      local template = plugin.load("stub", entry.path)
      for _, known in ipairs(template and template.extensions or {}) do
        if known == extension then
          return template
        end
      end
    end
  end
  language = language or job.script:match("^#![^\n]-(python)") or "python"
  local path, err = plugin.find("stub", language, self.cfg.stub_path)
  if not path then
    return nil, err
  end
  return plugin.load("stub", path)
end

return catalog
