-- SPDX-License-Identifier: MIT
-- Scripts in sh: the stub by real runs, with each awk and each sh that Debian has, its calls by the
-- run's socket, through the program of each runner, and by files.
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")

local TOOLS = { "cat", "env", "grep", "head", "mkdir", "mkfifo", "mv", "od", "rm", "sleep", "tail",
  "wc", "base64", "setsid", "tr" }

-- A directory of programs: sh and awk are chosen, the rest is the system's, or all is busybox.
local function programs(sh, awk, all)
  local dir = helper.scratch() .. "/bin"
  assert(fs.mkdir(dir, 448, true))
  local function link(name, program)
    assert.equal(0, os.execute(("ln -s $(command -v %s) %s/%s"):format(program, dir, name)))
  end
  for _, name in ipairs(TOOLS) do
    link(name, all or name)
  end
  link("sh", sh)
  link("awk", awk)
  -- For the runner.
  link("python3", "/usr/bin/python3")
  return dir
end

local KINDS = {}
for _, transport in ipairs({ "uds", "stream", "file" }) do
  for _, programs_of in ipairs({
    { "dash and mawk", "dash", "mawk" },
    { "bash and gawk", "bash", "gawk" },
    { "busybox alone", "busybox", "busybox", "busybox" },
  }) do
    local kind = { unpack(programs_of, 1, 4) }
    kind[1], kind.transport = kind[1] .. ", by " .. transport, transport
    KINDS[#KINDS + 1] = kind
  end
end

local function tool(name, handler)
  return {
    name = name, summary = "A tool.", handler = handler,
    parameters = {
      type = "object", additionalProperties = true, properties = { count = { type = "integer" } },
    },
  }
end

local function sh(kind, script)
  local seen = {}
  local result = engines.with({
    environ = { PATH = programs(kind[2], kind[3], kind[4]) },
    tools = {
      echo = tool("echo", function(args)
        seen[#seen + 1] = args
        return args.text or args
      end),
      fail = tool("fail", function()
        return nil, "it is \"broken\""
      end),
    }, enabled_tools = { "echo", "fail" },
    -- The static one is what carries uds.
    runner_forms = { "python" },
  }, function(one)
    return assert(one:run({ script = script, language = "sh", args = { "a b", "c" },
      transport = kind.transport }))
  end)
  return result, seen
end

describe("the sh stub", function()
  for _, kind in ipairs(KINDS) do
    describe("with " .. kind[1], function()
      it("carries texts both ways as they are", function()
        local texts = { "plain", " two  spaces ", 'quote " and \\ back\\\\slash', "tab\tbell\7end",
          "é € 😀", "line\nline\n\nline", "$(no) `no` $HOME *", "%s %d \\n", "/&/", "" }
        for i, text in ipairs(texts) do
          helper.write(helper.scratch() .. "/t" .. i, text)
        end
        local script = {}
        for i, text in ipairs(texts) do
          script[#script + 1] = ("call echo text='%s' > out.%d"):format(text, i)
          script[#script + 1] = ("cat out.%d"):format(i)
        end
        local result, seen = sh(kind, "cd \"$FARCALL_RUN_DIR\"\n" .. table.concat(script, "\n"))
        assert.equal("success", result.status, result.stderr)
        assert.equal("", result.stderr)
        for i, text in ipairs(texts) do
          assert.equal(text, seen[i].text)
        end
        assert.equal(table.concat(texts, "\n") .. "\n", result.output)
      end)

      it("takes JSON, prints JSON and single fields", function()
        local result, seen = sh(kind, [[
call echo n:=3 list:='[1, "x"]' deep:='{"a": {"b": null}}'
call -f n echo n:=3 name=x
call -f name echo n:=3 name='a "b" \ c'
call -f deep echo deep:='{"a":[1,{"b":"}"}]}' n:=1
call echo '{"text": "whole"}'
]])
        assert.equal("success", result.status, result.stderr)
        local lines = {}
        for line in result.output:gmatch("[^\n]+") do
          lines[#lines + 1] = line
        end
        assert.equal(3, json.decode(lines[1]).n)
        assert.same({ "3", 'a "b" \\ c', '{"a":[1,{"b":"}"}]}', "whole" },
          { lines[2], lines[3], lines[4], lines[5] })
        assert.equal(3, seen[1].n)
        assert.equal("x", seen[1].list[2])
      end)

      it("says what went wrong, and goes on", function()
        local result = sh(kind, [[
call fail; echo "status $?"
call nothing x=1; echo "status $?"
call echo loose; echo "status $?"
call; echo "status $?"
call -f none echo a=1; echo "status $?"
call echo count=1; echo "status $?"
echo "$# $1 $2"
exit 7
]])
        assert.equal(7, result.exit_code)
        assert.equal("1122112 a b c\n", (result.output:gsub("status (%d)\n", "%1")))
        assert.is_truthy(result.stderr:find('call: fail: it is "broken" [failed]', 1, true))
        assert.is_truthy(result.stderr:find("[not_found]", 1, true))
        assert.is_truthy(result.stderr:find("no field none", 1, true))
        assert.matches("count: expected [^\n]+%(what is no text: name:=JSON%) ", result.stderr)
      end)

      it("is not led astray by what the script has set", function()
        local result = sh(kind, [=[
set -eu
call echo text=options
(set -f -C -a -x; call echo text=more) 2> /dev/null
call > /dev/null 2>&1 || echo "status $?"
call -f > /dev/null 2>&1 || echo "status $?"
for IFS in "" , 0123456789abcdef '
'; do
  call echo text=IFS
done
export value args tool name word
value=x
call echo "text=$(head -c 200000 /dev/zero | tr '\000' a)" | wc -c
trap 'echo left' EXIT
call fail 2> /dev/null
]=])
        assert.equal("options\nmore\nstatus 2\nstatus 1\nIFS\nIFS\nIFS\nIFS\n200001\nleft\n",
          result.output, result.stderr)
        assert.equal(1, result.exit_code)
      end)

      it("carries large texts and calls in parallel", function()
        local result = sh(kind, [[
big=$(i=0
  while [ $i -lt 1000 ]; do printf '%s' 'a"b\c ééé 0123456789 '; i=$((i + 1)); done)
back=$(call echo text="$big")
[ "$back" = "$big" ] && echo same
for i in 1 2 3 4; do call echo text="$i" > "$FARCALL_RUN_DIR/o$i" & done
wait
cat "$FARCALL_RUN_DIR"/o1 "$FARCALL_RUN_DIR"/o2 "$FARCALL_RUN_DIR"/o3 "$FARCALL_RUN_DIR"/o4
]])
        assert.equal("same\n1\n2\n3\n4\n", result.output, result.stderr)
      end)
    end)
  end
end)
