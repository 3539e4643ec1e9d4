-- SPDX-License-Identifier: MIT
-- What joins a script that has no sockets with that of its run, where the runner is in Python. The
-- static runner is such a program itself. For what the Python one starts, FARCALL_RUNNER is its
-- interpreter: then `$FARCALL_RUNNER connect PATH`, in a directory that has this as a file named
-- connect, means the same as with the static one. Nothing has to be executable for that.

local connect = {}

---Of the files.
connect.NAMES = { "connect", "ask" }

-- Named ask, it ends when one line has come, and fails when none comes.
connect.PROGRAM = [=[
# Joins standard input and output with the Unix socket whose path is given. Not for import.
import sys
del sys.path[0]  # what the script has here are no modules of ours
import _socket
import os
import select

path = sys.argv[1]
line = sys.argv[0].endswith("ask")


def fail(words):
    sys.stderr.write("farcall-runner: {}: {}\n".format(path, words))
    sys.stderr.flush()
    os._exit(1)


def join():
    global line
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.connect(path)
    poll, pending = select.poll(), b""
    poll.register(sock.fileno(), select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for fd, what in poll.poll():
            if fd == 0:
                poll.unregister(0)
                pending = os.read(0, 65536)
                if not pending and not line:
                    sock.shutdown(_socket.SHUT_WR)
            elif what & ~select.POLLOUT:
                piece = sock.recv(65536)
                if not piece and line:
                    fail("connection closed")
                if not piece:
                    return
                end = piece.find(b"\n") + 1 if line else 0
                piece = piece[:end] if end else piece
                while piece:
                    piece = piece[os.write(1, piece):]
                if end:
                    return
        if pending:
            try:
                pending = pending[sock.send(pending, _socket.MSG_DONTWAIT):]
            except BlockingIOError:
                pass
            if not pending:
                poll.register(0, select.POLLIN)
            poll.register(sock.fileno(), select.POLLIN | (select.POLLOUT if pending else 0))


try:
    join()
except OSError as error:
    fail(error.strerror or error)
os._exit(0)
]=]

return connect
