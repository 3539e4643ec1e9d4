-- SPDX-License-Identifier: MIT
-- Batches of jobs that leave traces, and what came of them.

local helper = require("spec.helper")
local json = require("farcall.core.json")

local batches = {}

---Jobs as lines; a text stands for itself.
function batches.lines(jobs)
  local list = {}
  for i, job in ipairs(jobs) do
    list[i] = type(job) == "string" and job or assert(json.encode(job))
  end
  return table.concat(list, "\n") .. "\n"
end

function batches.write(home, jobs)
  home:write("work/jobs.jsonl", batches.lines(jobs))
end

function batches.run(home, ...)
  return home:run({ "batch", "jobs.jsonl", ... })
end

function batches.sum(got)
  return assert(json.decode(got.out), got.out .. got.err)
end

---All lines of the results, and the last of each id.
function batches.results(home, path)
  local list, last = {}, {}
  for line in (helper.read(home.work .. "/" .. (path or "jobs.jsonl.results.jsonl")) or "")
    :gmatch("([^\n]*)\n")
  do
    local value = assert(json.decode(line), line)
    list[#list + 1] = value
    if value.id then
      last[value.id] = value
    end
  end
  return list, last
end

---How often each line is in a text.
function batches.tally(text)
  local counts = {}
  for line in text:gmatch("[^\n]+") do
    counts[line] = (counts[line] or 0) + 1
  end
  return counts
end

---A job that adds its id to a file of this machine, and then goes on with `more`.
function batches.noting(home, id, more)
  return {
    id = id,
    script = ("open(%q, 'a').write('%s\\n')\n%s"):format(home.dir .. "/effects", id, more or ""),
  }
end

function batches.effects(home)
  return batches.tally(helper.read(home.dir .. "/effects") or "")
end

return batches
