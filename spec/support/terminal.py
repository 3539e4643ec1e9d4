# SPDX-License-Identifier: MIT
"""Runs a program at a terminal of its own, as somebody who types would.

    terminal.py EXPECTED TYPED EXPECTED TYPED ... -- PROGRAM ARG...

Waits for each expected text, then types the next one (\\x03 is Ctrl-C); prints all that came, and
ends with the program's exit code.
"""
import os
import pty
import select
import signal
import sys
import time

PATIENCE = 60


def main():
    split = sys.argv.index("--")
    steps, argv = sys.argv[1:split], sys.argv[split + 1:]
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    limit, seen, at = time.monotonic() + PATIENCE, b"", 0
    while time.monotonic() < limit:
        while steps and seen.find(steps[0].encode(), at) >= 0:
            at = seen.find(steps[0].encode(), at) + len(steps[0].encode())
            os.write(master, steps[1].encode().decode("unicode_escape").encode("latin-1"))
            steps = steps[2:]
        if select.select([master], [], [], 0.2)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                data = b""
            if not data:
                break
            seen += data
    else:
        os.kill(pid, signal.SIGKILL)
        seen += b"\n[terminal: still waiting for %r]\n" % (steps[:1],)
    sys.stdout.buffer.write(seen.replace(b"\r\n", b"\n"))
    sys.stdout.flush()
    status = os.waitpid(pid, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


main()
