# SPDX-License-Identifier: MIT
"""stalling_relay.py PORT TARGET_PORT FLAG EVERY PID_FILE: passes bytes between TCP connections to
PORT and TARGET_PORT on loopback. While the file FLAG is there nothing moves; with EVERY > 0 it
pauses for 50 ms after so many bytes. Small buffers, so that a stall is felt at once."""

import os
import select
import socket
import sys
import time

port, target, flag, every, pid_file = sys.argv[1:]
every = int(every)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
listener.bind(("127.0.0.1", int(port)))
listener.listen(16)
with open(pid_file, "w") as file:
    file.write("%d\n" % os.getpid())
other, moved = {}, 0


def close(end):
    for sock in (end, other.pop(end, None)):
        if sock:
            other.pop(sock, None)
            sock.close()


while True:
    while os.path.exists(flag):
        time.sleep(0.01)
    ready, _, _ = select.select([listener, *other], [], [], 0.05)
    for sock in ready:
        if sock is listener:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", int(target)))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            other[near], other[far] = far, near
        elif sock in other:
            try:
                data = sock.recv(65536)
                if data:
                    other[sock].sendall(data)
                else:
                    close(sock)
            except OSError:
                close(sock)
                continue
            moved += len(data)
            if every and moved >= every:
                moved = 0
                time.sleep(0.05)
