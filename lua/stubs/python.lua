-- SPDX-License-Identifier: MIT
-- The Python stub, for Python 3.8 and later. Three files: the module that scripts import, with one
-- function per tool; the call path below it, kept small because every script pays for compiling it;
-- and what few calls need, imported when it is needed.

local literal = require("farcall.literal")

local RUNTIME = [=[
"""How a call of a script reaches its farcall engine. Scripts import the module of the tools."""
import itertools
import sys
from os import getpid

__all__ = ["ToolError", "call", "parallel", "remaining", "retry", "json_parse", "shell_quote"]

_return_errors = False
_nullable = {}  # tool -> names of arguments that may be null
_encode = _scan = _quote = _token = _connect = None
_next_id = itertools.count(1).__next__
_exchange = None  # carries a call by files, where there is no socket
_idle = []  # connections that nobody uses; append and pop are atomic, so no lock is needed
_max_idle = 8
_pid = getpid()

# As at a terminal: a line is seen when it is written, and not lost when the script is killed.
try:
    sys.stdout.reconfigure(line_buffering=True)
except (AttributeError, ValueError):
    pass  # it is something else, or closed


class ToolError(Exception):
    """A tool call that did not end well.

    kind: "refused" by a policy, "failed" in the tool, "usage" for wrong arguments, "limit",
    "timeout", "not_found", "denied", ...; "lost" when the engine is gone and the call was not made;
    "unknown" when the connection broke after the call had been sent: it may have been carried out.
    message is a sentence, tool the name of the tool.
    """

    def __init__(self, kind, message, tool=None):
        super().__init__(kind, message, tool)
        self.kind, self.message, self.tool = kind, message, tool

    def __str__(self):
        return f"{self.tool}: {self.message} [{self.kind}]" if self.tool else self.message


def _load():
    # The C halves of json and socket only: the modules around them take 10 ms to import.
    global _encode, _scan, _quote, _token, _connect, _exchange, _next_id
    from os import environ, path

    def refuse(value):
        raise TypeError(f"JSON cannot hold a {type(value).__name__}")

    try:
        import _json

        class rules:
            strict, object_hook, object_pairs_hook = True, None, None
            parse_float, parse_int, parse_constant = float, int, float
        scan = _json.make_scanner(rules)
        quote = _json.encode_basestring
        encode = _json.make_encoder(None, refuse, quote, None, ":", ",", False, False, False)
        if "".join(encode({"a": [1, "b"]}, 0)) != '{"a":[1,"b"]}' or scan("[1]", 0) != ([1], 3):
            raise ImportError
    except Exception:
        try:
            import json
        except ImportError:
            raise ToolError("unsupported", "this Python has no module json, which calls need: "
                            "python3-minimal lacks it, python3 has it") from None
        scan = json.JSONDecoder().raw_decode
        quote = json.JSONEncoder(ensure_ascii=False).encode
        whole = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False,
                                 separators=(",", ":"), default=refuse).encode

        def encode(value, _level):
            return whole(value)
    directory = environ.get("FARCALL_RUN_DIR") or path.dirname(path.abspath(__file__))
    try:
        with open(directory + "/token", encoding="ascii") as file:
            token = file.read().strip()
    except OSError as error:
        raise ToolError("lost", f"this is not inside a farcall run: {error}") from None
    if path.isdir(directory + "/c"):
        import _farcall_file
        _farcall_file.directory = directory
        _scan, _quote, _token, _encode = scan, quote, token, encode
        _exchange, _next_id = _farcall_file.exchange, _farcall_file.new_id
        return
    import _socket
    name = directory + "/socket"
    far = len(name.encode("utf-8", "surrogateescape")) > 107

    def connect():
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.settimeout(None)
            if far:
                from _farcall_more import connect_far
                connect_far(sock, directory)
            else:
                sock.connect(name)
        except BaseException:
            sock.close()
            raise
        return sock

    import atexit
    atexit.register(_close_idle)
    _scan, _quote, _token, _connect, _encode = scan, quote, token, connect, encode


def _close_idle():
    while _idle:
        _idle.pop().close()


def _call(tool, arguments):
    global _pid
    if _encode is None:
        _load()
    number = _next_id()
    try:
        line = (f'{{"id":{number},"tool":{_quote(tool)},"args":{"".join(_encode(arguments, 0))},'
                f'"token":"{_token}"}}\n').encode()
    except Exception as error:
        from _farcall_more import explain
        raise explain(tool, arguments, error) from None
    if _exchange is not None:
        return _answer(_exchange(number, line), tool)
    if _pid != getpid():
        _pid = getpid()  # a forked child: its parent's connections are not for it
        _close_idle()
    sock = reply = None
    sent = False
    try:
        try:
            sock = _idle.pop()
        except IndexError:
            sock = _connect()
        sock.sendall(line)
        sent = True
        data = sock.recv(65536)
        if data[-1:] != b"\n":
            data = _read_on(sock, data)
        reply = _scan(str(data, "utf-8"), 0)[0]
        if reply["id"] != number:
            raise LookupError
        if len(_idle) < _max_idle:
            _idle.append(sock)
        else:
            sock.close()
    except BaseException as error:
        from _farcall_more import recover
        reply = recover(sock, sent, reply, number, line, error)
    return _answer(reply, tool)


def _answer(reply, tool):
    if "result" in reply:
        return reply["result"]
    problem = reply["error"]
    if _return_errors:
        return {"error": problem["message"], "kind": problem["kind"]}
    raise ToolError(problem["kind"], problem["message"], tool)


def _read_on(sock, data):
    parts = [data]
    while data:
        data = sock.recv(1048576)
        parts.append(data)
        if data[-1:] == b"\n":
            return b"".join(parts)
    raise EOFError


def call(tool, /, **arguments):
    """Calls any tool by its name.

    An argument that is None counts as not given, unless the tool's schema says that it may be null.
    """
    null = _nullable.get(tool, ())
    return _call(tool, {name: value for name, value in arguments.items()
                        if value is not None or name in null})


def remaining():
    """What this run may still do: (calls, seconds), also as .calls and ["calls"]."""
    from _farcall_more import remaining
    return remaining()


def parallel(tasks, workers=16, return_exceptions=False):
    """Runs tasks at the same time, in threads, and returns their results in order.

    A task is a function without arguments, or (function, arguments) with a dict of named or a list
    of positional arguments. When all have ended the first exception is raised, in the order of the
    tasks; with return_exceptions they stand in the list in place of results.
    """
    from _farcall_more import parallel
    return parallel(tasks, workers, return_exceptions)


def retry(fn, max_attempts=3, delay=2):
    """Calls fn() until it does not raise; waits delay, 2 * delay, ... seconds in between."""
    from _farcall_more import retry
    return retry(fn, max_attempts, delay)


def json_parse(text):
    """json.loads that does not mind control characters in strings, or a byte order mark."""
    import json
    return json.loads(text[1:] if text[:1] == "\ufeff" else text, strict=False)


def shell_quote(text):
    """One word of a shell's command line."""
    import shlex
    return shlex.quote(text)
]=]

local MORE = [=[
"""What few calls of a farcall stub need: trouble, threads, helpers."""
import time

import _farcall

# A longer request may be what the engine refused, not the connection.
LONG_LINE = 1048576
# Tries of a call that has certainly not been made, while connections break before it is out.
MAX_TRIES = 4
# Seconds that a call waits for a connection when the engine takes no more of them.
PATIENCE = 20


def failure(kind, message):
    return {"error": {"kind": kind, "message": message}}


def unknown():
    return failure(
        "unknown", "the connection broke before the reply: the call may have been carried out")


def connect_far(sock, directory):
    """Connects to a path beyond what a socket's address holds, by the directory's descriptor."""
    import os
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{handle}/socket")
    finally:
        os.close(handle)


def read_reply(sock):
    data = sock.recv(65536)
    if data[-1:] != b"\n":
        data = _farcall._read_on(sock, data)
    return _farcall._scan(str(data, "utf-8"), 0)[0]


def last_word(sock):
    """What the engine said before it hung up, if it did."""
    try:
        return read_reply(sock)
    except Exception:
        return None


def recover(sock, sent, reply, number, line, error):
    """The reply of a call that did not go the usual way; the connection is closed.

    A call is sent again only when it has certainly not been carried out: its newline, the last
    byte, never left, or the engine said that it takes no more connections.
    """
    if not isinstance(error, Exception):
        if sock is not None:
            sock.close()
        raise error
    if reply is None and sock is not None and not sent:
        reply = last_word(sock)
    if sock is not None:
        sock.close()
    if sock is None and isinstance(error, OSError):
        return failure("lost", f"the engine cannot be reached, the call was not made: {error}")
    if sent and reply is None:
        return unknown()
    return judge(reply, line) or again(number, line)


def judge(reply, line):
    """The engine's word about a request that it has not taken; None when it may be sent again."""
    if reply is None:
        return None
    if not isinstance(reply, dict) or reply.get("id") is not None or "error" not in reply:
        return unknown()
    if reply["error"].get("kind") == "limit" and len(line) < LONG_LINE:
        # Crowded: whoever has a connection gives it back after each call, so that all get on.
        _farcall._max_idle = 0
        _farcall._close_idle()
        return None
    return reply


def again(number, line):
    delay, tries, deadline = 0.002, 0, time.monotonic() + PATIENCE
    while True:
        try:
            try:
                sock = _farcall._idle.pop()
            except IndexError:
                sock = _farcall._connect()
        except OSError as error:
            return failure("lost", f"the engine cannot be reached, the call was not made: {error}")
        sent = False
        try:
            sock.sendall(line)
            sent = True
            reply = read_reply(sock)
            sock.close()
            if reply["id"] == number:
                return reply
        except BaseException as error:
            reply = last_word(sock) if isinstance(error, Exception) and not sent else None
            sock.close()
            if not isinstance(error, Exception):
                raise
            tries += 1
            if sent:
                return unknown()
            if reply is None and tries == MAX_TRIES:
                return failure("lost", "the connection broke, the call was not made")
        verdict = judge(reply, line)
        if verdict:
            return verdict
        if time.monotonic() > deadline:
            return reply or unknown()
        time.sleep(delay)
        delay = min(delay * 2, 0.1)


def misfit(value, place, inside):
    """Finds what JSON cannot hold: (place, what is wrong with it), or None."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        for index, char in enumerate(value):
            if "\ud800" <= char <= "\udfff":
                return place, (f"{char!a} at index {index} is half a surrogate pair, not a "
                               "character (a file name decoded with surrogateescape?)")
        return None
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError as error:
            return place, str(error)
        return None
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return place, f"JSON has no {value!r}"
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return place, (f"JSON cannot hold {type(value).__name__}: decode it to a str, or send "
                       "base64.b64encode(value).decode()")
    if not isinstance(value, (dict, list, tuple)):
        hint = ""
        if isinstance(value, (set, frozenset)) or hasattr(value, "__next__"):
            hint = ": make it a list"
        return place, f"JSON cannot hold a {type(value).__name__}{hint}"
    if id(value) in inside:
        return place, "it contains itself"
    if len(inside) > 200:
        return place, "it is nested too deeply"
    inside = inside | {id(value)}
    if isinstance(value, dict):
        items = value.items()
        for key in value:
            if key is not None and not isinstance(key, (str, int, float)):
                return place, f"a key of an object is a str, not a {type(key).__name__}"
            found = misfit(key, f"{place}: key", inside)
            if found:
                return found
    else:
        items = enumerate(value)
    for key, item in items:
        found = misfit(item, f"{place}[{key!a}]", inside)
        if found:
            return found
    return None


def explain(tool, arguments, error):
    """The exception for what cannot be sent."""
    if not isinstance(tool, str):
        return TypeError(f"the name of a tool is a str, not a {type(tool).__name__}")
    for name, value in [("", tool)] + list(arguments.items()):
        found = misfit(value, f"argument {name}" if name else "name of the tool", frozenset())
        if found:
            return TypeError(f"{tool!a}: {found[0]}: {found[1]}")
    return TypeError(f"{tool!a}: {error}")


class Remaining(tuple):
    """(calls, seconds) that are left to this run."""
    __slots__ = ()
    calls = property(lambda self: tuple.__getitem__(self, 0), doc="tool calls")
    seconds = property(lambda self: tuple.__getitem__(self, 1), doc="until the run is stopped")

    def __getitem__(self, key):
        return getattr(self, key) if key in ("calls", "seconds") else tuple.__getitem__(self, key)

    def __repr__(self):
        return f"Remaining(calls={self[0]!r}, seconds={self[1]!r})"


def remaining():
    reply = _farcall._call("farcall.remaining", {})
    if "error" in reply:
        raise _farcall.ToolError(reply["kind"], reply["error"])
    return Remaining((reply["calls"], reply["seconds"]))


def thunk(task, index):
    if callable(task):
        return task
    if isinstance(task, (tuple, list)) and 1 <= len(task) <= 3 and callable(task[0]):
        args, kwargs = (), {}
        for part in task[1:]:
            if isinstance(part, dict):
                kwargs = part
            elif isinstance(part, (tuple, list)):
                args = part
            else:
                break
        else:
            return lambda: task[0](*args, **kwargs)
    raise TypeError(f"task {index} is neither a function nor (function, arguments)")


def parallel(tasks, workers, return_exceptions):
    import itertools
    import threading
    jobs = [thunk(task, index) for index, task in enumerate(tasks)]
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers is a number from 1 on, not {workers!r}")
    results, failed, take = [None] * len(jobs), {}, itertools.count().__next__
    given_up = []

    def work():
        while not given_up:
            index = take()
            if index >= len(jobs):
                return
            try:
                results[index] = jobs[index]()
            except BaseException as error:
                failed[index] = results[index] = error

    threads = []
    try:
        for number in range(min(workers, len(jobs))):
            thread = threading.Thread(target=work, name=f"farcall-{number}", daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
    except BaseException:
        given_up.append(True)  # Ctrl-C: what is under way ends by itself, nothing new is begun
        raise
    if failed and not return_exceptions:
        raise failed[min(failed)]
    return results


def retry(fn, max_attempts, delay):
    if max_attempts < 1:
        raise ValueError(f"max_attempts is a number from 1 on, not {max_attempts!r}")
    for attempt in range(max_attempts):
        try:
            return fn()
        except Exception:
            if attempt == max_attempts - 1:
                raise
        time.sleep(delay * 2 ** attempt)
]=]

local FILE = [=[
"""Calls by files, for a script whose engine is beyond this machine: a request is put into the run's
directory, execs of the engine bring it there and put the reply beside it."""
import os
import select

import _farcall

directory = None  # set when the stub is first used
# Seconds after which a reply is looked for although no bell has rung.
LOOK = 5
# Where there are no FIFOs: seconds between looks, from the first to the last.
FIRST_LOOK, LAST_LOOK = 0.002, 0.05
# Bytes of a request that a shell may read by itself, byte by byte.
SMALL = 2048


def new_id():
    return int.from_bytes(os.urandom(6), "big")


def ring():
    for name in ("/bell.0", "/bell.1"):
        try:
            bell = os.open(directory + name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # nobody waits there
        try:
            os.write(bell, b"r\n")
        except OSError:
            pass
        finally:
            os.close(bell)


def lost(error):
    return {"error": {"kind": "lost",
                      "message": f"the request cannot be written, the call was not made: {error}"}}


def read_reply(name):
    try:
        with open(name + ".rep", "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    os.unlink(name + ".rep")
    return _farcall._scan(str(data, "utf-8"), 0)[0]


def wait_for_bell(name, bell):
    poller = select.poll()  # select() knows no descriptor beyond 1023
    poller.register(bell, select.POLLIN)
    while True:
        reply = read_reply(name)
        if reply is not None:
            return reply
        if not os.path.isdir(directory):
            return {"error": {"kind": "unknown", "message": "the run's directory is gone"}}
        if poller.poll(LOOK * 1000):
            os.read(bell, 4096)


def look_for_reply(name):
    import time
    delay = FIRST_LOOK
    while True:
        reply = read_reply(name)
        if reply is not None:
            return reply
        if not os.path.isdir(directory):
            return {"error": {"kind": "unknown", "message": "the run's directory is gone"}}
        time.sleep(delay)
        delay = min(delay * 1.5, LAST_LOOK)


def exchange(number, line):
    """The reply to a request."""
    name = f"{directory}/c/{number}"
    request = name + (".req" if len(line) <= SMALL else ".big")
    bell = None
    try:
        try:
            os.mkfifo(name + ".bell", 0o600)
            bell = os.open(name + ".bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            bell = None  # no FIFOs here
        try:
            handle = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                             0o600)
            with open(handle, "wb") as file:
                file.write(line)
            os.rename(name + ".new", request)
        except OSError as error:
            remove(name + ".new")
            return lost(error)
        ring()
        return look_for_reply(name) if bell is None else wait_for_bell(name, bell)
    finally:
        if bell is not None:
            os.close(bell)
            remove(name + ".bell")
        remove(request)


def remove(name):
    try:
        os.unlink(name)
    except OSError:
        pass
]=]

local KEYWORDS = {}
for word in
  ([[False None True and as assert async await break class continue def del elif else except
     finally for from global if import in is lambda nonlocal not or pass raise return try while
     with yield]]):gmatch("%S+")
do
  KEYWORDS[word] = true
end

-- What the module itself defines; a tool of such a name gets one with an underscore behind.
local OWN = {}
for word in
  ([[ToolError call parallel remaining retry json_parse shell_quote annotations]]):gmatch("%S+")
do
  OWN[word] = true
end

local TYPES = {
  string = "str", integer = "int", number = "float", boolean = "bool", array = "list",
  object = "dict", null = "None",
}
local RETURNS = {
  dict = "dict", list = "list", str = "str", int = "int", float = "float", bool = "bool",
}

local function astral(point)
  return ("\\U%08x"):format(point)
end

local function quoted(text)
  return '"' .. literal.escape(text, astral) .. '"'
end

---A docstring: escape() leaves no bare quote or backslash in a line, and the newlines between lines
---are real ones.
local function docstring(text, indent)
  local lines = {}
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = (literal.escape(line, astral):gsub("%s+$", ""))
  end
  return '"""' .. table.concat(lines, "\n" .. indent):gsub("\n +\n", "\n\n") .. "\n" .. indent
    .. '"""'
end

---A default as Python text; "None" for what is filled in on the other side.
local function default_of(schema)
  local value = schema.default
  local kind = type(value)
  if kind == "string" then
    return quoted(value)
  elseif kind == "boolean" then
    return value and "True" or "False"
  elseif kind == "number" and value == value and math.abs(value) < 1e300 then
    return value % 1 == 0 and math.abs(value) < 2 ^ 53 and ("%d"):format(value)
      or ("%.17g"):format(value)
  end
  return "None"
end

---@return string? annotation nil when the schema does not tell
---@return boolean nullable
local function type_of(schema)
  local kinds = type(schema.type) == "table" and schema.type or { schema.type }
  local names, nullable = {}, false
  for _, kind in ipairs(kinds) do
    local name = TYPES[kind]
    if not name then
      return nil, false
    elseif kind == "null" then
      nullable = true
    elseif kind == "array" and type(schema.items) == "table" and TYPES[schema.items.type] then
      names[#names + 1] = "list[" .. TYPES[schema.items.type] .. "]"
    else
      names[#names + 1] = name
    end
  end
  if nullable then
    names[#names + 1] = "None"
  end
  return #names > 0 and table.concat(names, " | ") or nil, nullable
end

local function usable(name)
  return literal.identifier(name) and not KEYWORDS[name]
end

---What goes into a tool's signature and body.
local function plan(tool)
  local parts = { shown = {}, hidden = {}, nullable = {} }
  for _, parameter in ipairs(tool.parameters) do
    local annotation, nullable = type_of(parameter.schema)
    if nullable then
      parts.nullable[#parts.nullable + 1] = parameter.name
    end
    table.insert(usable(parameter.name) and parts.shown or parts.hidden, {
      name = parameter.name, required = parameter.required, annotation = annotation,
      nullable = nullable, default = default_of(parameter.schema), schema = parameter.schema,
    })
  end
  -- Python wants what has no default first.
  local sorted = {}
  for _, required in ipairs({ true, false }) do
    for _, parameter in ipairs(parts.shown) do
      if parameter.required == required then
        sorted[#sorted + 1] = parameter
      end
    end
  end
  parts.shown = sorted
  parts.rest = tool.open or #parts.hidden > 0
  return parts
end

local function signature(tool, parts)
  local list, marked = {}, false
  for _, parameter in ipairs(parts.shown) do
    if not parameter.required and not tool.ordered and not marked then
      list[#list + 1], marked = "*", true
    end
    local annotation = parameter.annotation
    local text = parameter.name
    if parameter.required then
      text = text .. (annotation and ": " .. annotation or "")
    else
      if annotation and parameter.default == "None" and not parameter.nullable then
        annotation = annotation .. " | None"
      end
      text = text .. (annotation and ": " .. annotation .. " = " or "=") .. parameter.default
    end
    list[#list + 1] = text
  end
  if parts.rest then
    list[#list + 1] = "**_more"
  end
  return table.concat(list, ", ")
end

local function documentation(tool, parts)
  local lines = { tool.summary, "" }
  for _, list in ipairs({ parts.shown, parts.hidden }) do
    for _, parameter in ipairs(list) do
      local said = parameter.schema.description
      said = type(said) == "string" and " " .. said or ""
      lines[#lines + 1] = parameter.name .. ":" .. said
      local values = {}
      local enum = parameter.schema.enum
      for _, value in ipairs(type(enum) == "table" and enum or {}) do
        values[#values + 1] = tostring(value)
      end
      if #values > 0 then
        lines[#lines] = lines[#lines] .. " (" .. table.concat(values, ", ") .. ")"
      end
    end
  end
  if tool.description ~= "" then
    lines[#lines + 1] = ""
    lines[#lines + 1] = tool.description
  end
  return table.concat(lines, "\n")
end

---The function of one tool. An argument that is None is not sent, except where null has a meaning.
local function define(out, tool, name, parts)
  local returns = RETURNS[tool.returns]
  out[#out + 1] = ("\n\ndef %s(%s)%s:\n    %s\n"):format(name, signature(tool, parts),
    returns and " -> " .. returns or "", docstring(documentation(tool, parts), "    "))
  local always, maybe = {}, {}
  for _, parameter in ipairs(parts.shown) do
    local line = { quoted(parameter.name), parameter.name }
    local keeps_null = parameter.required and parameter.nullable
    table.insert(keeps_null and always or maybe, line)
  end
  local fixed = {}
  for i, line in ipairs(always) do
    fixed[i] = line[1] .. ": " .. line[2]
  end
  out[#out + 1] = "    _arguments = {" .. table.concat(fixed, ", ") .. "}\n"
  for _, line in ipairs(maybe) do
    out[#out + 1] = ("    if %s is not None:\n        _arguments[%s] = %s\n")
      :format(line[2], line[1], line[2])
  end
  if parts.rest then
    out[#out + 1] = "    _arguments.update(_more)\n"
  end
  out[#out + 1] = ("    return _call(%s, _arguments)\n"):format(quoted(tool.name))
end

-- "ticket.open" becomes ticket_open; a name that Python or this module needs gets an underscore.
local function function_name(tool, taken)
  local name = tool.name:gsub("[.%-]", "_")
  if KEYWORDS[name] or OWN[name] then
    name = name .. "_"
  end
  if not literal.identifier(name) or taken[name] then
    return nil
  end
  taken[name] = true
  return name
end

local function module_text(tools, options)
  local names, functions, nullable, taken = {}, {}, {}, {}
  -- A tool that bears a name as it is comes before one that only becomes it.
  for _, tool in ipairs(tools) do
    if literal.identifier(tool.name) and not KEYWORDS[tool.name] and not OWN[tool.name] then
      taken[tool.name] = tool
    end
  end
  for _, tool in ipairs(tools) do
    local name
    if taken[tool.name] == tool then
      name = tool.name
    else
      name = function_name(tool, taken)
    end
    local parts = plan(tool)
    if name then
      define(functions, tool, name, parts)
      names[#names + 1] = quoted(name)
    end
    if #parts.nullable > 0 then
      local list = {}
      for i, parameter in ipairs(parts.nullable) do
        list[i] = quoted(parameter)
      end
      nullable[#nullable + 1] = ("_runtime._nullable[%s] = {%s}\n")
        :format(quoted(tool.name), table.concat(list, ", "))
    end
  end
  return table.concat({
    '"""The tools of this farcall run; each call is carried out on the operator\'s side."""\n',
    "from __future__ import annotations\n\nimport _farcall as _runtime\n",
    "from _farcall import (ToolError, call, json_parse, parallel, remaining, retry,\n",
    "                      shell_quote)\n\n",
    "__all__ = [*_runtime.__all__", #names > 0 and ", " or "", table.concat(names, ", "), "]\n\n",
    "ToolError.__module__ = __name__\n",
    options.errors == "return" and "_runtime._return_errors = True\n" or "",
    table.concat(nullable), "_call = _runtime._call\n", table.concat(functions),
  })
end

---@type farcall.StubTemplate
return {
  language = "python",
  summary = "A module with a typed function per tool, threads, forked processes, parallel calls.",
  extensions = { "py" },
  interpreter = { "python3", "/usr/bin/python3", "python" },
  render = function(tools, options)
    return {
      { name = options.module .. ".py", text = module_text(tools, options) },
      { name = "_farcall.py", text = RUNTIME },
      { name = "_farcall_more.py", text = MORE },
      { name = "_farcall_file.py", text = FILE },
    }
  end,
  environment = function(dir)
    return { PYTHONPATH = dir, PYTHONDONTWRITEBYTECODE = "1" }
  end,
}
