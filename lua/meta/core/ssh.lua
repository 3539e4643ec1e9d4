-- SPDX-License-Identifier: MIT
---@meta farcall.core.ssh

---SSH by libssh2, on the loop: one connection, many channels. A step calls its function once, with
---true, or nil, a message and a code.
---@class farcall.core.ssh
local ssh = {}

---@class farcall.SshAttempt
local SshAttempt = {}

---@class farcall.SshConnection
local SshConnection = {}

---@class farcall.SshChannel
local SshChannel = {}

---@alias farcall.SshStep fun(ok: true?, message: string?, code: string?)

---@param loop farcall.Loop
---@param address string a number, not a name
---@param port string
---@param fn fun(fd: integer?, message: string?, code: string?) fd is then the caller's
---@return farcall.SshAttempt?
---@return string? message
---@return string? code
function ssh.connect(loop, address, port, fn) end

---Not collected while it lives: whoever is done with it closes it.
---@param loop farcall.Loop
---@param fd integer taken over
---@param options? {window?: integer, max_memory?: integer}
---@return farcall.SshConnection?
---@return string? message
---@return string? code
function ssh.new(loop, fd, options) end

---Whether a hashed name of known_hosts is that of a host.
---@param hashed string
---@param name string
---@return boolean
function ssh.is_hash_of(hashed, name) end

---Gives up. Idempotent.
function SshAttempt:close() end

---@param types? string of host keys, by commas, the best first
---@param fn farcall.SshStep
---@return true?
---@return string? message
---@return string? code
function SshConnection:handshake(types, fn) end

---@param user string
---@param fn farcall.SshStep then see methods()
---@return true?
---@return string? message
---@return string? code
function SshConnection:ask_methods(user, fn) end

---@param user string
---@param key string the private key, as in its file
---@param fn farcall.SshStep
---@return true?
---@return string? message
---@return string? code
function SshConnection:auth_key(user, key, fn) end

---By a key that somebody else holds.
---@param user string
---@param blob string the public key
---@param sign fun(bytes: string) leads to signed()
---@param fn farcall.SshStep
---@return true?
---@return string? message
---@return string? code
function SshConnection:auth_signer(user, blob, sign, fn) end

---@param signature? string nil: there is none
function SshConnection:signed(signature) end

---@return string? blob
function SshConnection:host_key() end

---@return string? names of ways to log in, by commas
function SshConnection:methods() end

---@return boolean
function SshConnection:is_authenticated() end

---From here on there may be channels.
---@param keepalive number seconds; 0: none
---@return true?
---@return string? message
---@return string? code
function SshConnection:serve(keepalive) end

---@param fn fun(message: string, code: string) not called when it is dead already
function SshConnection:on_death(fn) end

---@return string? message nil while it lives
---@return string? code
function SshConnection:death() end

---@param command string
---@return farcall.SshChannel?
---@return string? message
---@return string? code
function SshConnection:exec(command) end

---@return {memory: integer, open: integer, queued: integer}
function SshConnection:census() end

---Idempotent.
function SshConnection:close() end

---@param fn? fun() called when the state has changed, when a read that said "EAGAIN" would say
---something else, and when everything written has gone
function SshChannel:on_change(fn) end

---@param max integer
---@return "out"|"err"|nil stream
---@return string bytes or a message
---@return string? code "EAGAIN": nothing now; "EOF"; or what has failed
function SshChannel:read(max) end

---@param bytes string
---@return integer? pending bytes still queued
---@return string? message
---@return string? code
function SshChannel:write(bytes) end

---@return integer bytes still queued
function SshChannel:pending() end

---End of its standard input.
function SshChannel:finish() end

---Gives it up. Idempotent.
function SshChannel:close() end

---@return "queued"|"opening"|"starting"|"running"|"closing"|"done"
function SshChannel:state() end

---@return boolean the server has not answered yet to its start
function SshChannel:is_pending() end

---@return boolean the command ended before all its input was sent
function SshChannel:has_dropped() end

---@return integer? exit_code
---@return string? signal its name; or a message of why there is no status
---@return string? code
function SshChannel:exit() end

return ssh
