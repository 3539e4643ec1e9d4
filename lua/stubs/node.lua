-- SPDX-License-Identifier: MIT
-- The JavaScript stub, for Node.js 18 and later. The module that scripts import has one function
-- per tool, each of which returns a promise; below it the call path over one connection; the way by
-- files, loaded where there is no socket; and what is looked at before the script starts.
--
-- All files are in one directory, so there is no node_modules: package.json gives the directory the
-- module's name, and what is in a package may import it by its own name.

local literal = require("farcall.literal")

local RUNTIME = [=[
// How a call of a script reaches its farcall engine. Scripts import the module of the tools.
"use strict";
const fs = require("fs");

// Requests beyond this are refused by the engine, and the connection with them.
const MAX_REQUEST = 64 * 1024 * 1024;
// Milliseconds that a call waits for a connection when the engine takes no more of them.
const PATIENCE = 20000;

/** A tool call that did not end well. */
class ToolError extends Error {
  /**
   * @param {string} kind "refused" by a policy, "failed" in the tool, "usage" for wrong arguments,
   * "limit", "timeout", "not_found", "denied", ...; "lost" when the engine is gone and the call was
   * not made; "unknown" when the connection broke after the call had been sent: it may have been
   * carried out
   * @param {string} message a sentence
   * @param {string} [tool] the name of the tool
   */
  constructor(kind, message, tool) {
    super(tool ? `${tool}: ${message} [${kind}]` : message);
    this.message = message; // the stack keeps the longer one
    this.kind = kind;
    this.tool = tool;
  }

  toString() {
    return this.tool ? `${this.tool}: ${this.message} [${this.kind}]` : this.message;
  }
}
ToolError.prototype.name = "ToolError";

const options = { returnErrors: false };
const nullable = new Map(); // tool -> names of arguments that may be null
let directory, token, exchange, newId;
let lastId = 0;

function failure(kind, message) {
  return { error: { kind, message } };
}

function load() {
  directory = process.env.FARCALL_RUN_DIR || __dirname;
  try {
    token = fs.readFileSync(directory + "/token", "latin1").trim();
  } catch (error) {
    throw new ToolError("lost", `this is not inside a farcall run: ${error.message}`);
  }
  if (fs.existsSync(directory + "/c")) {
    ({ exchange, newId } = require("./_farcall_file.cjs")(directory, failure));
  } else {
    exchange = throughSocket;
    newId = () => ++lastId;
  }
}

// What JSON cannot hold: a text that says where and why, or nothing.
function misfit(value, place, depth) {
  switch (typeof value) {
    case "string":
      return (value.isWellFormed ? value.isWellFormed() : !/\p{Surrogate}/u.test(value))
        ? undefined : `${place}: half a surrogate pair is not a character`;
    case "number":
      return Number.isFinite(value) ? undefined : `${place}: JSON has no ${value}`;
    case "bigint":
      return `${place}: JSON cannot hold a BigInt: send Number(value) or String(value)`;
    case "function":
    case "symbol":
      return `${place}: JSON cannot hold a ${typeof value}`;
    case "object":
      break;
    default:
      return undefined;
  }
  if (value === null) {
    return undefined;
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    return `${place}: JSON cannot hold bytes: send Buffer.from(value).toString("base64"), `
      + `or toString("utf8")`;
  }
  if (typeof value.then === "function") {
    return `${place}: it is a promise: await it`;
  }
  if (depth > 200) {
    return `${place.slice(0, 40)}...: it contains itself, or is nested too deeply`;
  }
  if (typeof value.toJSON === "function") {
    return misfit(value.toJSON(), place, depth + 1);
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const found = misfit(value[i], `${place}[${i}]`, depth + 1);
      if (found) {
        return found;
      }
    }
    return undefined;
  }
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind === "String" || kind === "Number" || kind === "Boolean") {
    return misfit(value.valueOf(), place, depth);
  }
  if (kind !== "Object") {
    const hint = kind === "Set" || kind === "Map" ? ": make it an array or an object" : "";
    return `${place}: JSON cannot hold a ${kind}${hint}`;
  }
  for (const key of Object.keys(value)) {
    const found = misfit(key, `${place}: key`, depth)
      || misfit(value[key], `${place}[${JSON.stringify(key)}]`, depth + 1);
    if (found) {
      return found;
    }
  }
  return undefined;
}

async function callRaw(tool, args) {
  if (typeof tool !== "string") {
    throw new TypeError(`the name of a tool is a string, not a ${typeof tool}`);
  }
  const problem = misfit(tool, "name of the tool", 0) || misfit(args, "arguments", 0);
  if (problem) {
    throw new TypeError(`${JSON.stringify(tool)}: ${problem}`);
  }
  if (!exchange) {
    load();
  }
  const id = newId();
  const line = Buffer.from(`{"id":${id},"tool":${JSON.stringify(tool)},`
    + `"args":${JSON.stringify(args)},"token":"${token}"}\n`);
  const reply = line.length > MAX_REQUEST
    ? failure("limit", `a request has at most ${MAX_REQUEST} bytes`)
    : await exchange(id, line);
  if (!reply.error) {
    return reply.result;
  }
  // Made here, behind an await of the script's, so that its stack names the script's lines.
  if (options.returnErrors) {
    return { error: reply.error.message, kind: reply.error.kind };
  }
  throw new ToolError(reply.error.kind, reply.error.message, tool);
}

let link = null; // the connection; all calls go over it, at the same time

function connect() {
  const net = require("net");
  let path = directory + "/socket", handle = -1;
  if (Buffer.byteLength(path) > 107) {
    // Beyond what a socket's address holds: by the directory's descriptor.
    handle = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    path = `/proc/self/fd/${handle}/socket`;
  }
  const own = { waiting: new Map(), connected: false, heard: false, word: null, problem: null };
  const socket = own.socket = net.connect({ path });
  let parts = [];
  const release = () => {
    if (handle >= 0) {
      fs.closeSync(handle);
      handle = -1;
    }
  };
  socket.on("connect", () => {
    own.connected = true;
    release();
  });
  socket.on("data", (chunk) => {
    let from = 0;
    for (let at; (at = chunk.indexOf(10, from)) >= 0; from = at + 1) {
      parts.push(chunk.subarray(from, at));
      const line = parts.length === 1 ? parts[0] : Buffer.concat(parts);
      parts = [];
      take(own, line);
    }
    if (from < chunk.length) {
      parts.push(chunk.subarray(from));
    }
  });
  socket.on("error", (error) => {
    own.problem = error;
  });
  socket.on("close", () => {
    release();
    if (link === own) {
      link = null;
    }
    for (const settle of own.waiting.values()) {
      settle(epitaph(own));
    }
  });
  return own;
}

function take(own, line) {
  let reply;
  try {
    reply = JSON.parse(line.toString("utf8"));
  } catch {
    return own.socket.destroy();
  }
  const settle = reply && own.waiting.get(reply.id);
  if (settle && ("result" in reply || reply.error)) {
    own.heard = true;
    own.waiting.delete(reply.id);
    if (own.waiting.size === 0) {
      own.socket.unref(); // nothing is awaited: the process may end
    }
    settle(reply);
  } else if (reply && reply.id === null && reply.error) {
    own.word = reply.error;
  } else {
    own.socket.destroy();
  }
  return undefined;
}

// What a call gets whose connection has ended. Made again are only calls that certainly were not:
// the engine had no room for the connection.
function epitaph(own) {
  if (!own.connected) {
    const problem = failure("lost",
      `the engine cannot be reached, the call was not made: ${own.problem && own.problem.message}`);
    problem.again = Boolean(own.problem && own.problem.code === "EAGAIN");
    return problem;
  }
  if (own.word && !own.heard) {
    return { error: own.word, again: own.word.kind === "limit" };
  }
  return failure("unknown",
    "the connection broke before the reply: the call may have been carried out");
}

async function throughSocket(id, line) {
  const deadline = Date.now() + PATIENCE;
  for (let delay = 2; ; delay = Math.min(delay * 2, 100)) {
    const reply = await new Promise((resolve) => {
      if (!link) {
        link = connect();
      }
      link.waiting.set(id, resolve);
      link.socket.ref();
      link.socket.write(line);
    });
    if (!reply.again || Date.now() > deadline) {
      return reply;
    }
    await sleep(delay);
  }
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// What is not given is not sent; nor is null, but where the tool's schema says that it may be.
function given(tool, source, target) {
  const mayBeNull = nullable.get(tool);
  for (const name of Object.keys(source)) {
    const value = source[name];
    if (value !== undefined && (value !== null || (mayBeNull && mayBeNull.includes(name)))) {
      target[name] = value;
    }
  }
  return target;
}

function isPlain(value) {
  return Object.prototype.toString.call(value) === "[object Object]"
    && typeof value.then !== "function";
}

// A call of a tool's function: the arguments by position, then perhaps an object of named ones.
function invoke(tool, names, takesObject, values) {
  const args = Object.create(null);
  let count = values.length;
  while (count > 0 && values[count - 1] === undefined) {
    count--;
  }
  let named = {};
  if (count > 0 && isPlain(values[count - 1]) && !takesObject[count - 1]) {
    named = values[--count];
  }
  if (count > names.length) {
    return Promise.reject(new TypeError(`${tool} takes ${names.length} arguments by position`
      + " and then an object with the others by name"));
  }
  const positional = {};
  for (let i = 0; i < count; i++) {
    if (Object.prototype.hasOwnProperty.call(named, names[i])) {
      return Promise.reject(new TypeError(`${tool}: ${names[i]} is given twice`));
    }
    Object.defineProperty(positional, names[i], { value: values[i], enumerable: true });
  }
  return callRaw(tool, given(tool, named, given(tool, positional, args)));
}

/**
 * Calls any tool by its name.
 *
 * @param {string} tool
 * @param {Object<string, any>} [args] undefined and, unless the tool's schema says that it may be
 * null, null count as not given
 * @returns {Promise<any>}
 */
function call(tool, args = {}) {
  if (!isPlain(args)) {
    return Promise.reject(new TypeError("the arguments of a tool are an object"));
  }
  return callRaw(tool, given(tool, args, Object.create(null)));
}

/**
 * What this run may still do.
 *
 * @returns {Promise<{calls: number, seconds: number}>}
 */
async function remaining() {
  const reply = await callRaw("farcall.remaining", {});
  if (reply.error !== undefined) {
    throw new ToolError(reply.kind, reply.error);
  }
  return reply;
}

/**
 * Runs tasks, at most `workers` at a time, and resolves to their results in order. When all have
 * ended the first error is thrown, in the order of the tasks; with returnErrors the errors stand in
 * the list in place of results.
 *
 * @template T
 * @param {Iterable<(() => T | Promise<T>) | Promise<T>>} tasks
 * @param {{workers?: number, returnErrors?: boolean}} [how]
 * @returns {Promise<T[]>}
 */
async function parallel(tasks, { workers = 16, returnErrors = false } = {}) {
  const jobs = Array.from(tasks), results = new Array(jobs.length), failed = new Map();
  jobs.forEach((job, index) => {
    if (typeof job !== "function" && !(job && typeof job.then === "function")) {
      throw new TypeError(`task ${index} is neither a function nor a promise`);
    }
    if (typeof job !== "function") {
      job.then(undefined, () => {}); // it is awaited, though perhaps after it has failed
    }
  });
  if (!Number.isInteger(workers) || workers < 1) {
    throw new TypeError(`workers is a number from 1 on, not ${workers}`);
  }
  let next = 0;
  const work = async () => {
    while (next < jobs.length) {
      const index = next++;
      try {
        results[index] = await (typeof jobs[index] === "function" ? jobs[index]() : jobs[index]);
      } catch (error) {
        failed.set(index, error);
        results[index] = error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(workers, jobs.length) }, work));
  if (failed.size > 0 && !returnErrors) {
    throw failed.get(Math.min(...failed.keys()));
  }
  return results;
}

/**
 * Calls fn() until it does not fail; waits delay, 2 * delay, ... seconds in between.
 *
 * @template T
 * @param {() => T | Promise<T>} fn
 * @param {{maxAttempts?: number, delay?: number}} [how]
 * @returns {Promise<T>}
 */
async function retry(fn, { maxAttempts = 3, delay = 2 } = {}) {
  if (!(maxAttempts >= 1)) {
    throw new TypeError(`maxAttempts is a number from 1 on, not ${maxAttempts}`);
  }
  for (let attempt = 1; ; attempt++) {
    try {
      return await fn();
    } catch (error) {
      if (attempt >= maxAttempts) {
        throw error;
      }
    }
    await sleep(delay * 1000 * 2 ** (attempt - 1));
  }
}

/**
 * JSON.parse that does not mind control characters in strings, or a byte order mark.
 *
 * @param {string} text
 * @returns {any}
 */
function jsonParse(text) {
  const body = text.replace(/^\ufeff/, "");
  try {
    return JSON.parse(body);
  } catch {
    return JSON.parse(body.replace(/"(?:[^"\\]|\\[^])*"/g, (string) =>
      // eslint-disable-next-line no-control-regex
      string.replace(/[\x00-\x1f]/g, (char) =>
        "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"))));
  }
}

/**
 * One word of a shell's command line.
 *
 * @param {string} text
 * @returns {string}
 */
function shellQuote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? String(text) : `'${String(text).replace(/'/g, `'\\''`)}'`;
}

module.exports = {
  ToolError, call, remaining, parallel, retry, jsonParse, shellQuote, invoke, nullable, options,
};
]=]

local FILE = [=[
// Calls by files, for a script whose engine is beyond this machine: a request is put into the run's
// directory, execs of the engine bring it there and put the reply beside it.
"use strict";
const fs = require("fs");

// Milliseconds between looks for replies: where the directory is watched, in case that something
// was not told; where it cannot be, from the first to the last.
const LOOK = 1000, FIRST_LOOK = 2, LAST_LOOK = 50;
// Bytes of a request that a shell may read by itself, byte by byte.
const SMALL = 2048;

module.exports = function byFiles(directory, failure) {
  const waiting = new Map(); // id -> {settle, request}
  let watcher = null, timer = null, delay = FIRST_LOOK;

  function remove(name) {
    try {
      fs.unlinkSync(name);
    } catch {
      // it is gone
    }
  }

  function ring() {
    for (const name of ["/bell.0", "/bell.1"]) {
      try {
        const bell = fs.openSync(directory + name,
          fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
        try {
          fs.writeSync(bell, "r\n");
        } finally {
          fs.closeSync(bell);
        }
      } catch {
        // nobody waits there
      }
    }
  }

  function settle(id, reply) {
    const { resolve, request } = waiting.get(id);
    waiting.delete(id);
    remove(request);
    if (waiting.size === 0) {
      clearTimeout(timer); // nothing is awaited: the process may end
      timer = null;
    }
    resolve(reply);
  }

  function look(id) {
    const name = `${directory}/c/${id}.rep`;
    let text;
    try {
      text = fs.readFileSync(name, "utf8");
    } catch {
      return false;
    }
    remove(name);
    let reply;
    try {
      reply = JSON.parse(text);
    } catch {
      reply = failure("unknown", "the reply cannot be read: the call may have been carried out");
    }
    settle(id, reply);
    return true;
  }

  function lookAgain() {
    timer = null;
    for (const id of [...waiting.keys()]) {
      if (!look(id) && !fs.existsSync(directory)) {
        settle(id, failure("unknown", "the run's directory is gone"));
      }
    }
    delay = watcher ? LOOK : Math.min(delay * 1.5, LAST_LOOK);
    if (waiting.size > 0) {
      timer = setTimeout(lookAgain, delay);
    }
  }

  function watch() {
    try {
      watcher = fs.watch(directory + "/c", { persistent: false }, (_, name) => {
        const id = /^(\d+)\.rep$/.exec(name || "");
        if (id && waiting.has(Number(id[1]))) {
          look(Number(id[1]));
        }
      });
      watcher.on("error", () => {
        watcher = null;
      });
    } catch {
      watcher = null;
    }
  }
  watch();

  return {
    newId: () => require("crypto").randomBytes(6).readUIntBE(0, 6),

    exchange(id, line) {
      const name = `${directory}/c/${id}`;
      const request = name + (line.length <= SMALL ? ".req" : ".big");
      try {
        fs.writeFileSync(name + ".new", line, { flag: "wx", mode: 0o600 });
        fs.renameSync(name + ".new", request);
      } catch (error) {
        remove(name + ".new");
        return Promise.resolve(failure("lost",
          `the request cannot be written, the call was not made: ${error.message}`));
      }
      ring();
      return new Promise((resolve) => {
        waiting.set(id, { resolve, request });
        clearTimeout(timer);
        delay = watcher ? LOOK : FIRST_LOOK;
        timer = setTimeout(lookAgain, delay);
      });
    },
  };
};
]=]

-- What kind of module a .js file is depends on the package.json beside it. So it can be decided
-- from the script, as later versions of Node do, until Node looks.
local START = [=[
// Loaded before the script: a script whose name does not tell may be either kind of module.
"use strict";
const fs = require("fs"), path = require("path"), vm = require("vm");

const MODULE_ONLY = new RegExp("import statement outside a module|Unexpected token 'export'|"
  + "Cannot use 'import.meta'");

// Whether it is nothing for require(): it imports or exports, or it awaits outside of functions.
function isModule(source) {
  const body = source.replace(/^#!.*/, "");
  try {
    vm.compileFunction(body, ["exports", "require", "module", "__filename", "__dirname"]);
    return false;
  } catch (error) {
    if (MODULE_ONLY.test(error.message)) {
      return true;
    }
  }
  try {
    return Boolean(new vm.Script(`(async () => {${body}\n})`));
  } catch {
    return false;
  }
}

function prepare(script) {
  if (!script || !script.endsWith(".js") || fs.realpathSync(path.dirname(script)) !== __dirname
    || !isModule(fs.readFileSync(script, "utf8"))) {
    return;
  }
  const name = path.join(__dirname, "package.json");
  const about = JSON.parse(fs.readFileSync(name, "utf8"));
  fs.writeFileSync(name, JSON.stringify({ ...about, type: "module" }));
  globalThis.require = require("module").createRequire(script);
}

if (require("worker_threads").isMainThread) {
  try {
    prepare(process.argv[1]);
  } catch {
    // Node says better what is wrong with it.
  }
}
]=]

local function set_of(words)
  local set = {}
  for word in words:gmatch("%S+") do
    set[word] = true
  end
  return set
end

-- Words that are no names in a module, and names on which the module's own text depends; `then`
-- would make a promise of the module.
local KEYWORDS = set_of([[
  arguments await break case catch class const continue debugger default delete do else enum eval
  export extends false finally for function if implements import in instanceof interface let new
  null package private protected public return static super switch this throw true try typeof var
  void while with yield undefined NaN Infinity require exports module then]])

-- What the module itself defines; a tool of such a name gets one with an underscore behind.
local HELPERS = "ToolError call jsonParse parallel remaining retry shellQuote"
local OWN = set_of(HELPERS)

local TYPES = {
  string = "string", integer = "number", number = "number", boolean = "boolean", array = "any[]",
  object = "Object<string, any>", null = "null",
}
local RETURNS = {
  dict = "Object<string, any>", list = "any[]", str = "string", int = "number", float = "number",
  bool = "boolean",
}

local function quoted(text)
  return '"' .. literal.escape(text, function(point)
    return ("\\u{%x}"):format(point)
  end) .. '"'
end

-- The values of an enum as a type; nil when there is one that is more than a plain word.
local function enum_type(values)
  local names = {}
  for i, value in ipairs(type(values) == "table" and values or {}) do
    if type(value) ~= "string" or not value:find("^[%w_][%w_ .-]*$") then
      return nil
    end
    names[i] = '"' .. value .. '"'
  end
  return #names > 0 and table.concat(names, "|") or nil
end

---@return string type
---@return boolean nullable
---@return boolean takes_object
local function type_of(schema)
  local kinds = type(schema.type) == "table" and schema.type or { schema.type }
  local names, nullable, takes_object = {}, false, #kinds == 0
  for _, kind in ipairs(kinds) do
    local name = TYPES[kind]
    if not name then
      return "any", false, true
    end
    nullable = nullable or kind == "null"
    takes_object = takes_object or kind == "object"
    if kind == "array" and type(schema.items) == "table" and TYPES[schema.items.type] then
      name = TYPES[schema.items.type] .. "[]"
    elseif kind == "string" then
      name = enum_type(schema.enum) or name
    end
    names[#names + 1] = name
  end
  return #names > 0 and table.concat(names, "|") or "any", nullable, takes_object
end

-- A name for a parameter: only the reader sees it.
local function parameter_name(name, taken)
  if not literal.identifier(name) then
    name = "arg"
  elseif KEYWORDS[name] then
    name = name .. "_"
  end
  while taken[name] do
    name = name .. "_"
  end
  taken[name] = true
  return name
end

---What goes into a tool's signature: what is given by position, and what only by name.
local function plan(tool)
  local parts = { positional = {}, named = {}, nullable = {}, taken = {} }
  for _, parameter in ipairs(tool.parameters) do
    local kind, nullable, takes_object = type_of(parameter.schema)
    if nullable then
      parts.nullable[#parts.nullable + 1] = parameter.name
    end
    local by_position = parameter.required or tool.ordered
    table.insert(by_position and parts.positional or parts.named, {
      wire = parameter.name, required = parameter.required, kind = kind, schema = parameter.schema,
      takes_object = takes_object,
      name = by_position and parameter_name(parameter.name, parts.taken) or parameter.name,
    })
  end
  if #parts.named > 0 or tool.open then
    parts.options = parameter_name("options", parts.taken)
  end
  return parts
end

-- What is said of a parameter, in one line.
local function said_of(parameter)
  local schema, words = parameter.schema, {}
  if parameter.name ~= parameter.wire then
    words[1] = "(" .. parameter.wire .. ")"
  end
  if type(schema.description) == "string" then
    words[#words + 1] = schema.description
  end
  local values = {}
  for i, value in ipairs(type(schema.enum) == "table" and schema.enum or {}) do
    values[i] = tostring(value)
  end
  if #values > 0 then
    words[#words + 1] = "(" .. table.concat(values, ", ") .. ")"
  end
  local default = schema.default
  if type(default) == "string" or type(default) == "number" or type(default) == "boolean" then
    words[#words + 1] = "(default " .. tostring(default) .. ")"
  end
  return table.concat(words, " ")
end

local function documentation(tool, parts)
  local out = { "/**" }
  local function text(prefix, said)
    for i, line in ipairs(literal.comment(said, "*/")) do
      line = (i == 1 and prefix or "") .. line
      -- What a text says is no tag.
      if prefix == "" or i > 1 then
        line = line:gsub("^(%s*)@", "%1- @")
      end
      out[#out + 1] = (" * " .. line):gsub("%s+$", "")
    end
  end
  text("", tool.summary)
  if tool.description ~= "" then
    text("", "\n" .. tool.description)
  end
  out[#out + 1] = " *"
  for _, parameter in ipairs(parts.positional) do
    text(("@param {%s} %s "):format(parameter.kind,
      parameter.required and parameter.name or "[" .. parameter.name .. "]"), said_of(parameter))
  end
  if parts.options then
    out[#out + 1] = (" * @param {%s} [%s]"):format(tool.open and "Object<string, any>" or "Object",
      parts.options)
    for _, parameter in ipairs(parts.named) do
      if literal.identifier(parameter.name) then
        text(("@param {%s} [%s.%s] "):format(parameter.kind, parts.options, parameter.name),
          said_of(parameter))
      else
        text("", parameter.name .. ": " .. said_of(parameter))
      end
    end
  end
  out[#out + 1] = (" * @returns {Promise<%s>}"):format(RETURNS[tool.returns] or "any")
  out[#out + 1] = " */"
  return table.concat(out, "\n")
end

local function define(out, tool, name, parts)
  local names, wires, objects = {}, {}, {}
  for i, parameter in ipairs(parts.positional) do
    names[i], wires[i] = parameter.name, quoted(parameter.wire)
    objects[i] = tostring(parameter.takes_object)
  end
  names[#names + 1] = parts.options
  out[#out + 1] = ("\n%s\nfunction %s(%s) {\n  return _runtime.invoke(%s, [%s], [%s], "
    .. "arguments);\n}\n"):format(documentation(tool, parts), name, table.concat(names, ", "),
    quoted(tool.name), table.concat(wires, ", "), table.concat(objects, ", "))
end

local function usable(name)
  return literal.identifier(name) and not KEYWORDS[name] and not OWN[name]
end

-- "ticket.open" becomes ticket_open; a name that JavaScript or this module needs gets an
-- underscore.
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

---@return string text of the module
---@return string[] names that it exports
local function module_text(tools, options)
  local names, functions, nullable, taken = {}, {}, {}, {}
  -- A tool that bears a name as it is comes before one that only becomes it.
  for _, tool in ipairs(tools) do
    if usable(tool.name) then
      taken[tool.name] = tool
    end
  end
  for name in HELPERS:gmatch("%S+") do
    names[#names + 1] = name
  end
  for _, tool in ipairs(tools) do
    local name = taken[tool.name] == tool and tool.name or function_name(tool, taken)
    local parts = plan(tool)
    if name then
      define(functions, tool, name, parts)
      names[#names + 1] = name
    end
    if #parts.nullable > 0 then
      local list = {}
      for i, parameter in ipairs(parts.nullable) do
        list[i] = quoted(parameter)
      end
      nullable[#nullable + 1] = ("_runtime.nullable.set(%s, [%s]);\n"):format(quoted(tool.name),
        table.concat(list, ", "))
    end
  end
  return table.concat({
    "// The tools of this farcall run; each call is carried out on the operator's side.\n",
    '"use strict";\nconst _runtime = require("./_farcall.cjs");\n',
    "const { ", (HELPERS:gsub(" ", ", ")), " } = _runtime;\n",
    options.errors == "return" and "_runtime.options.returnErrors = true;\n" or "",
    table.concat(nullable), table.concat(functions),
    "\nmodule.exports = {\n  ", table.concat(names, ",\n  "), ",\n};\n",
  }), names
end

---@type farcall.StubTemplate
return {
  language = "node",
  summary = "A module with a typed function per tool, each of which returns a promise.",
  extensions = { "js", "mjs", "cjs" },
  interpreter = { "node", "nodejs" },
  launch = function(dir, script)
    return { "--require", dir .. "/_farcall_start.cjs", script }
  end,
  render = function(tools, options)
    local text, names = module_text(tools, options)
    local module = options.module
    return {
      { name = module .. ".cjs", text = text },
      { name = module .. ".mjs", text = ('import _module from "./%s.cjs";\n\n'
        .. "export default _module;\nexport const {\n  %s,\n} = _module;\n")
        :format(module, table.concat(names, ",\n  ")) },
      -- For require() from anywhere else, by NODE_PATH.
      { name = module, text = ('module.exports = require("./%s.cjs");\n'):format(module) },
      { name = "package.json", text = ('{"name": "%s", "private": true, "exports": {"import": '
        .. '"./%s.mjs", "require": "./%s.cjs"}}\n'):format(module, module, module) },
      { name = "_farcall.cjs", text = RUNTIME },
      { name = "_farcall_file.cjs", text = FILE },
      { name = "_farcall_start.cjs", text = START },
    }
  end,
  environment = function(dir)
    return { NODE_PATH = dir .. ":node_modules" }
  end,
}
