# SPDX-License-Identifier: MIT
# Starts runner/runner.py as an engine does that has sent it, but with the text from its file.
from os import path
with open(path.dirname(path.abspath(__file__)) + "/../../runner/runner.py", "rb") as file:
    t = file.read()
exec(compile(t.split(b"\f")[0], "farcall-runner", "exec"))
