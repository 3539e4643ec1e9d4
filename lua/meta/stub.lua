-- SPDX-License-Identifier: MIT
---@meta

---What a stub template returns. Texts of tools are anything: put them into a file only as an
---identifier that farcall.literal's identifier() has passed, by its escape(), or as base64.
---@class farcall.StubTemplate
---@field language string
---@field summary? string one line
---@field extensions string[] of the scripts' files, without the dot
---@field interpreter string[] programs, the first that is there runs the script
---@field render fun(tools: farcall.stub.Tool[], options: farcall.stub.Options):
---farcall.stub.File[]?, string?
---@field launch? fun(dir: string, script: string): string[] the interpreter's arguments before the
---script's own; the path of the script when absent
---@field transports? table<string, true|"program"> those that the stub speaks ("uds", "stream",
---"file"); all when absent. For the stub uds and stream are the same: a socket; with "program" it
---has no sockets of its own: uds is for it only where the program farcall-runner is installed
---@field program? boolean it may reach the socket by `$FARCALL_RUNNER connect socket`, or `ask`, which
---it starts in the run's directory
---@field environment? fun(dir: string): table<string, string> variables for the script, given its
---private directory, in which the files are

---@class farcall.stub.Options
---@field module string an identifier: what scripts import
---@field errors "raise"|"return" what a call does that did not end well

---@class farcall.stub.File
---@field name string letters, digits, _, - and .; none of farcall.stub.RESERVED
---@field text string
