-- SPDX-License-Identifier: MIT
local contract = require("spec.backends.contract")
local system = require("farcall.core.system")

for _, tree in ipairs({ "auto", "subreaper" }) do
  local user = system.uid() == 0 and "" or ", an ordinary user"
  contract.all(("local, tree=%s%s"):format(tree, user), {
    use = "local", options = { tree = tree },
    caps = {
      argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
      kill = "native", same_host = true, files = true, isolated = false,
    },
    transports = { "uds", "file" }, huge = tree == "auto",
    wrong = {
      { what = "no such directory", options = { cwd = "/no/such" }, kind = "config" },
      { what = "no such option", options = { colour = "red" }, kind = "config" },
    },
  }, tree == "subreaper" and { "c", "python" } or nil)
end
