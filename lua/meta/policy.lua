-- SPDX-License-Identifier: MIT
---@meta
-- What an operator writes a policy against. A policy file returns one farcall.Policy; it runs in a
-- Lua state of its own, of which this is all there is besides the safe parts of Lua's base, string,
-- table and math libraries (no coroutines, no io, os, debug, load; time and chance come by ctx).
-- An error, a limit or a wrong return value denies, and says file and line.

---@class farcall.Policy
---@field name string
---@field summary string one line, for `farcall policies`
---@field options? table<string, farcall.Option> what the configuration may set
---@field before? fun(call: farcall.PolicyCall, ctx: farcall.PolicyContext): farcall.Decision asked about each call; once more when a policy replaces its arguments or it is made again
---@field after? fun(call: farcall.PolicyCall, reply: farcall.PolicyReply, ctx: farcall.PolicyContext): farcall.PolicyReply|farcall.Decision exactly once for each call that passed before, whatever its outcome
---@field place? fun(job: farcall.PolicyJob, candidates: farcall.Candidate[], ctx: farcall.PolicyContext): string|farcall.Decision|nil the backend to run a job on; nil leaves it to others; may deny(reason)
---@field finish? fun(result: table, ctx: farcall.PolicyContext): table the run's result, changed or not

---@class farcall.Option
---@field type "string"|"integer"|"number"|"boolean"|"list"|"map"|"path"|"seconds"
---@field required? boolean
---@field default? any
---@field one_of? any[]
---@field secret? boolean never shown
---@field doc? string

---@class farcall.PolicyCall
---@field id integer of this run
---@field tool string
---@field arguments table checked against the tool's schema
---@field idempotent boolean making it twice does no harm

---@class farcall.PolicyReply
---@field outcome "done"|"failed"|"refused"|"unknown"
---@field result? any of a call that was done
---@field error? {kind: string, message: string} of any other; also given to withhold a result

---@class farcall.PolicyJob
---@field language string
---@field backend? string when the job names one
---@field timeout number seconds
---@field script_bytes integer
---@field id? string of a batch
---@field labels? table<string, string|number|boolean> of a batch, as its line says

---A backend of the configuration; or the one that the job names, alone.
---@class farcall.Candidate
---@field name string
---@field labels table<string, string|number|boolean> as configured
---@field cost? number as configured
---@field running integer runs of this engine that it has now
---@field error? string why it could not be used when it was last tried

---@class farcall.PolicyContext
---@field options table as configured, checked, with defaults
---@field run table kept from call to call of this run; any values
---@field run_id string
---@field job farcall.PolicyJob
---@field calls_made integer calls of this run that all policies have allowed so far
---@field operator farcall.PolicyState plain values kept from run to run of this engine
---@field now fun(): number unix time in seconds
---@field date osdate local time as os.date("*t") gives it
---@field random fun(m?: integer, n?: integer): number as math.random
---@field redact fun(text: string): string masks what looks like a key, token or password

---@class farcall.PolicyState
---@field get fun(key: string): any
---@field set fun(key: string, value: any)

---@class farcall.Decision opaque

---The call may be made, as far as this policy is concerned.
---@return farcall.Decision
function allow() end

---The call is refused; the script gets the reason. In `place`: the job is.
---@param reason string
---@return farcall.Decision
function deny(reason) end

---The call is made with these arguments instead, once they have passed the tool's schema and all
---policies from the first on. A call's arguments are replaced 8 times at most.
---@param arguments table
---@return farcall.Decision
function replace(arguments) end

---The script gets this as result; no tool is called.
---@param reply any
---@return farcall.Decision
function answer(reply) end

---The call goes on if a human says yes.
---@param question string
---@return farcall.Decision
function ask(question) end

---The call goes on after this time.
---@param ms number
---@return farcall.Decision
function wait(ms) end

---In `after`, for a failed call: it is made again after this time if its tool is idempotent;
---otherwise the failure stands.
---@param ms number
---@return farcall.Decision
function again(ms) end

---JSON's null, as it stands in arguments and replies.
---@type lightuserdata
null = nil

---Marks a table as a list, so that an empty one is [] in JSON and not {}.
---@param list? table
---@return table
function array(list) end
