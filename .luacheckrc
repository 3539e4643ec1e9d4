std = "luajit"
max_line_length = 100
allow_defined = false
exclude_files = { "build*/**", "luarocks*/**" }

files["spec"] = { std = "luajit+busted" }
-- A policy file runs in a state of its own, where the decisions are the only extra globals.
files["lua/policies"] = {
  read_globals = { "allow", "deny", "replace", "answer", "ask", "wait", "again", "null", "array" },
}
-- A configuration is Lua whose words are the only extra globals.
files["bench/config.lua"] = { read_globals = { "tool", "tools", "policy", "limits" } }
files["lua/meta"] = { ignore = { "111", "212", "211", "311", "241", "631" } }
