-- SPDX-License-Identifier: MIT
---@meta farcall.core.http

---HTTP by libcurl, on the loop. Bodies of responses are read by pull: a reader that stops stops the
---sender.
---@class farcall.core.http
local http = {}

---@class farcall.HttpClient
local HttpClient = {}

---@class farcall.HttpTransfer
local HttpTransfer = {}

---@class farcall.core.http.Request
---@field url string
---@field method? string
---@field unix_path? string the socket to connect to, in place of the url's host
---@field headers? string[] whole lines, at most 64
---@field body? string
---@field ca_file? string
---@field cert_file? string
---@field key_file? string
---@field proxy? string
---@field fresh? boolean on a connection of its own: curl sends again what meets a dead old one
---@field connect_timeout? number seconds; 30
---@field timeout? number seconds; none
---@field max_in? integer bytes of the response kept for the reader; 256 KiB

---@param loop farcall.Loop
---@return farcall.HttpClient?
---@return string? message
---@return string? code
function http.new(loop) end

---@param request farcall.core.http.Request
---@return farcall.HttpTransfer?
---@return string? message
---@return string? code
function HttpClient:request(request) end

---Only connects, TLS too; then see take_fd.
---@param request farcall.core.http.Request
---@return farcall.HttpTransfer?
---@return string? message
---@return string? code
function HttpClient:connect(request) end

---Ends what runs with "CLOSED". Idempotent.
function HttpClient:close() end

---@param fn? fun() called on the loop when the status is there, when a read would say something
---else than before, and at the end
function HttpTransfer:on_change(fn) end

---@return integer? status nil as long as there is none
function HttpTransfer:status() end

---@param max? integer 65536
---@return string? bytes of the body
---@return string? message
---@return string? code "EAGAIN": nothing now; "EOF"; or what has failed
function HttpTransfer:read(max) end

---@return table<string, string> headers names in lower case; what comes more than once is joined
function HttpTransfer:headers() end

---After connect, once a read says "EOF": the socket, the caller's from here on.
---@return integer? fd
---@return string? message
---@return string? code
function HttpTransfer:take_fd() end

---Gives it up. Idempotent.
function HttpTransfer:close() end

return http
