-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local json = require("farcall.core.json")
local session = require("farcall.cli.session")
local suggest = require("farcall.suggest")

local env = {}

local EXIT_OK, EXIT_ENGINE = 0, 125

env.description = [[
Lists the environments that farcall has made, removes some, or collects what dead engines left:
their private environments, shared ones that nobody has used for longer than their limit, and
directories on this machine.]]

env.epilog = [[
Examples:
  farcall env ls
  farcall env rm farcall-box-dev-0c5d6ae317
  farcall env gc --dry-run

Exit code: 0 when everything that was asked for was done, 125 otherwise.]]

function env.configure(command)
  command:usage("Usage: farcall env [OPTION]... (ls | rm NAME... | gc)")
  command:argument("action", "What to do: ls, rm or gc."):choices({ "ls", "rm", "gc" }):args("?")
  command:argument("names", "What to remove."):args("*"):argname("NAME")
  command:flag("--force", "With rm: also one that an engine uses, or may use.")
  command:flag("-n --dry-run", "With gc: only tell what would be removed.")
end

-- What of a row is data for others.
local function public(row)
  return {
    name = row.name, kind = row.kind, backend = row.backend, key = row.key, owner = row.owner,
    users = row.kind == "keyed" and row.users or nil, created = row.created, used = row.used,
    idle = row.idle, exists = row.exists, problem = row.problem and tostring(row.problem) or nil,
  }
end

local function problems_of(list)
  local texts = {}
  for i, problem in ipairs(list) do
    texts[i] = { where = problem.where, error = tostring(problem.err) }
  end
  return json.array(texts)
end

local function tell_problems(ui, list)
  for _, problem in ipairs(list) do
    ui:err(("%s %s: %s\n"):format(ui:paint("red", "farcall:"), problem.where,
      ui.plain(tostring(problem.err))))
  end
end

local function date(seconds)
  return seconds and os.date("%Y-%m-%d %H:%M", math.floor(seconds)) or "-"
end

local function owner_of(row)
  if row.exists == false then
    return row.owner .. ", gone"
  elseif row.kind == "keyed" and row.record then
    return row.users == 0 and "unused" or ("%d using it"):format(row.users)
  end
  return row.owner
end

---@async
local function list(leftovers, ui)
  local rows, problems = leftovers.inventory:known()
  if ui.json then
    local all = {}
    for i, row in ipairs(rows) do
      all[i] = public(row)
    end
    ui:out_json({ environments = json.array(all), problems = problems_of(problems) })
    return EXIT_OK
  end
  local lines = { { "NAME", "BACKEND", "KEY", "OWNER", "CREATED", "LAST USE" } }
  for _, row in ipairs(rows) do
    lines[#lines + 1] = {
      row.name, row.backend, (tostring(row.key or "-"):gsub("%c", "?")), owner_of(row),
      date(row.created), date(row.used),
    }
  end
  if #rows > 0 then
    ui:columns(lines)
  end
  tell_problems(ui, problems)
  return EXIT_OK
end

local function find(rows, name)
  local names = {}
  for i, row in ipairs(rows) do
    if row.name == name then
      return row
    end
    names[i] = row.name
  end
  local near = suggest.nearest(name, names)
  return nil, errors.new("not_found", "environment " .. name, "farcall has made none of this name",
    { hint = near and ("did you mean %s?"):format(near) or "`farcall env ls` lists them" })
end

---@async
local function remove(leftovers, names, force, ui)
  local rows = leftovers.inventory:known()
  local results, failed = {}, false
  for i, name in ipairs(names) do
    local row, err = find(rows, name)
    local ok
    if row then
      ok, err = leftovers:remove(row, force)
    end
    results[i] = { name = name, removed = ok or false, error = not ok and tostring(err) or nil }
    failed = failed or not ok
    if not ok then
      ui:fail(err)
    elseif not ui.json then
      ui:say("removed: " .. name)
    end
  end
  if ui.json then
    ui:out_json({ environments = json.array(results) })
  end
  return failed and EXIT_ENGINE or EXIT_OK
end

local DONE = {
  remove = "removed", forget = "forgotten, it was gone", directory = "removed",
  sweep = "looked into, directories removed: %d",
}
local WOULD = {
  remove = "would be removed", forget = "is gone, would be forgotten",
  directory = "would be removed", sweep = "would be looked into",
}

---@async
local function collect(leftovers, dry_run, ui)
  local done, problems = leftovers:collect(dry_run)
  local results, failed = {}, #problems > 0
  for i, entry in ipairs(done) do
    results[i] = {
      what = entry.what, name = entry.name, backend = entry.backend, count = entry.count,
      error = entry.err and tostring(entry.err) or nil,
    }
    failed = failed or entry.err ~= nil
    if entry.err then
      ui:fail(entry.err)
    elseif not ui.json then
      ui:out(("%s: %s\n"):format(entry.name,
        (dry_run and WOULD or DONE)[entry.what]:format(entry.count or 0)))
    end
  end
  if ui.json then
    ui:out_json({
      collected = json.array(results), dry_run = dry_run or false, problems = problems_of(problems),
    })
  elseif #done == 0 then
    ui:say("nothing is left over")
  end
  tell_problems(ui, problems)
  return failed and EXIT_ENGINE or EXIT_OK
end

function env.run(args, ui)
  local action, names = args.action or "ls", args.names or {}
  local problem
  if action == "rm" and #names == 0 then
    problem = "which one? `farcall env ls` lists them"
  elseif action ~= "rm" and #names > 0 then
    problem = "only rm takes names"
  elseif args.force and action ~= "rm" then
    problem = "--force belongs to rm"
  elseif args.dry_run and action ~= "gc" then
    problem = "--dry-run belongs to gc"
  end
  if problem then
    return session.fail(ui, errors.new("usage", "env " .. action, problem))
  end
  return session.with_engine(args, ui, {}, function(engine)
    local leftovers = engine:leftovers()
    if action == "ls" then
      return list(leftovers, ui)
    elseif action == "rm" then
      return remove(leftovers, names, args.force, ui)
    end
    return collect(leftovers, args.dry_run, ui)
  end)
end

return env
