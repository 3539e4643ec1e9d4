-- SPDX-License-Identifier: MIT
---@meta farcall.core.json

---JSON as RFC 8259 has it, to the letter and within limits: for all that scripts and tools say.
---Whole numbers beyond 2^53 become texts, as they came. What is wrong is nil, a message, a code
---("SYNTAX", "LIMIT", "DEPTH", "DUPLICATE", "UTF8", "NUMBER", "TYPE"), and of a text the byte at
---which it is, from 1.
---@class farcall.core.json
---@field null lightuserdata
local json = {}

---@class farcall.core.json.Limits
---@field max_depth? integer
---@field max_bytes? integer
---@field max_values? integer

---A JSON text that is encoded as it is.
---@class farcall.JsonRaw: userdata

---@param text string
---@param limits? farcall.core.json.Limits
---@return any value
---@return string? message
---@return string? code
---@return integer? at
function json.decode(text, limits) end

---@param value any arrays and empty tables as they are marked, else by their keys
---@param limits? {max_depth?: integer, max_bytes?: integer}
---@return string? text
---@return string? message
---@return string? code
function json.encode(value, limits) end

---Whether it is JSON, without making a value of it.
---@param text string
---@param limits? farcall.core.json.Limits
---@return true?
---@return string? message
---@return string? code
---@return integer? at
function json.check(text, limits) end

---The members of an object, each as the JSON text that it is.
---@param text string
---@param limits? farcall.core.json.Limits
---@return table<string, string>?
---@return string? message
---@return string? code
---@return integer? at
function json.fields(text, limits) end

---Checks the text; tostring() gives it back.
---@param text string
---@param limits? farcall.core.json.Limits
---@return farcall.JsonRaw?
---@return string? message
---@return string? code
---@return integer? at
function json.raw(text, limits) end

---Marks a table as an array, also an empty one.
---@generic T: table
---@param list T
---@return T the same table
function json.array(list) end

---Marks a table as an object, also an empty one.
---@generic T: table
---@param map T
---@return T the same table
function json.object(map) end

---@param value any
---@return boolean
function json.is_array(value) end

return json
