-- SPDX-License-Identifier: MIT
---@meta

---What a backend file returns.
---@class farcall.Backend
---@field name string
---@field summary string one line
---@field api 1
---@field options table<string, farcall.OptionDecl>
---@field caps farcall.Caps
---@field check? fun(options: table): boolean, farcall.Error? offline, before open
---@field open async fun(options: table, ctx: farcall.BackendContext): farcall.Env?, farcall.Error?
---@field list? async fun(options: table, ctx: farcall.BackendContext):
---{name: string, labels?: table<string, string>}[]?, farcall.Error? what farcall has made that is
---there now; of options those that are required may be missing
---@field reap? async fun(name: string, options: table, ctx: farcall.BackendContext):
---true?, farcall.Error? removes one; one that is gone already is success. A backend that has it also
---has the options key and idle

---One option of a backend or a policy.
---@class farcall.OptionDecl
---@field type "string"|"integer"|"number"|"boolean"|"list"|"map"|"path"|"size"|"seconds"
---@field required? boolean
---@field default? any
---@field secret? boolean never printed
---@field one_of? any[]
---@field doc string

---Facts about what a backend can do. What is missing counts as "no".
---@class farcall.Caps
---@field argv? boolean takes a list of words as it is; otherwise a line for sh
---@field stdin? "stream"|"bytes"|"none"
---@field stdout? "stream"|"end"
---@field split? boolean stderr apart from stdout
---@field status? "exact"|"code" signals told as such, or only an exit code
---@field kill? "native"|"none"
---@field parallel? integer|boolean processes at once
---@field max_command? integer bytes of a command line
---@field max_exec_seconds? number
---@field same_host? boolean a Unix socket of this machine can be reached
---@field files? boolean put and get
---@field isolated? boolean environments cannot see each other

---What the engine lends to open(), list() and reap(). To open() of a backend that can reap also what
---the environment is to be called and whose it is, unless it only attaches to one. Without a key it
---is private: env:close() removes it. With one it is created under that name, atomically, or used
---when it is there already, and env:close() leaves it.
---@class farcall.BackendContext
---@field name? string of the environment: at most 60 of [a-z0-9-]; the same key gives the same
---@field key? string
---@field labels? table<string, string> to be kept with it and told by list(): "farcall.engine",
---"farcall.created", "farcall.backend" and, when there is one, "farcall.key"
---@field engine string this engine's identity
---@field environ table<string, string> the operator's environment variables
---@field passthrough string[] names that the operator lets through
---@field runtime_dir string private directory of this user
---@field supervisor string path of farcall-supervisor
---@field log? fun(level: string, text: string)

---One live place where commands run.
---@class farcall.Env
---@field name? string
---@field caps farcall.Caps
---@field cwd? string where commands start unless told otherwise
---@field shell? string for command lines; sh unless set
---@field tree? string how a runner is to hold process trees; "subreaper" unless set
---@field grace? number seconds between TERM and KILL; 2 unless set
---@field link_grace? number seconds that a runner waits for another link when its own breaks; 0
---unless set: it ends with its link
---@field passed? table<string, string> variables that the engine is to set for all that it starts,
---where ctx.passthrough is not looked after in open()
local Env = {}

---Starts one process.
---@async
---@param spec farcall.StartSpec
---@return farcall.Process?
---@return farcall.Error? err
function Env:start(spec) end

---For a service that can only run a command to its end; instead of start.
---@async
---@param spec farcall.oneshot.Spec
---@return farcall.oneshot.Result?
---@return farcall.Error? err
function Env:exec(spec) end

---False when it is known to be dead; the engine then opens a new one, once.
---@return boolean
function Env:alive() end

---Only where the link to it can break: makes a new one when the last is dead, or in any case.
---@async
---@param anew? boolean in any case
---@return true?
---@return farcall.Error? err
function Env:restore(anew) end

---Gives back everything. Idempotent.
---@async
---@return boolean? nil only when something may be left
---@return farcall.Error? err
function Env:close() end

---@class farcall.StartSpec
---@field argv? string[]
---@field command? string a line for sh, instead of argv
---@field stdin? string "pipe", "null" or the bytes themselves; "null" when absent
---@field env? table<string, string> over what the environment has
---@field cwd? string
---@field script? boolean argv is an interpreter and its script: a runner that is such an interpreter
---itself may go on as that one, where it makes no difference. For all others it means nothing

---One process in an environment.
---@class farcall.Process
local Process = {}

---The next output, at most max bytes; nil when both streams have ended. Who stops reading stops the
---writer.
---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string bytes
function Process:read(max) end

---Waits until the bytes are on their way.
---@async
---@param bytes string
---@return boolean?
---@return farcall.Error? err
function Process:write(bytes) end

---End of its standard input.
function Process:close_stdin() end

---@async
---@return {exit?: integer, signal?: integer, name?: string}? status
---@return farcall.Error? err
function Process:wait() end

---Ends the process and everything that it started: TERM, grace, KILL. Returns when nothing is left.
---Idempotent.
---@async
function Process:kill() end

return { Env = Env, Process = Process }
