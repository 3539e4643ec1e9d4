-- SPDX-License-Identifier: MIT
local cli = require("farcall.cli")

local completion = {}

completion.description = "Prints a completion script, made from the flags of this very version."

completion.epilog = [[
Examples:
  farcall completion bash > ~/.local/share/bash-completion/completions/farcall
  farcall completion zsh > ~/.zfunc/_farcall
  farcall completion fish > ~/.config/fish/completions/farcall.fish]]

function completion.configure(command)
  command:argument("shell", "bash, zsh or fish."):choices({ "bash", "zsh", "fish" })
end

function completion.run(args, ui)
  local parser = cli.parser(require("argparse"))
  local script = parser[("get_%s_complete"):format(args.shell)](parser)
  ui:out(script)
  return 0
end

return completion
