#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Calls an echo server on a Unix socket N times, one JSON line each way, as a script calls a tool.

usage: bench/echo_client.py PATH [N]
"""
import json
import socket
import sys
import time


def main():
    path = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    for _ in range(200):
        try:
            link.connect(path)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.02)
    request = {"id": 0, "tool": "echo", "args": {"text": "hello"}, "token": "0" * 64}
    times = []
    for i in range(count):
        start = time.perf_counter()
        request["id"] = i
        link.sendall(json.dumps(request).encode() + b"\n")
        reply = b""
        while not reply.endswith(b"\n"):
            reply += link.recv(65536)
        assert json.loads(reply)["id"] == i
        times.append(time.perf_counter() - start)
    times = sorted(times[count // 10:])
    median = times[len(times) // 2] * 1e6
    p99 = times[len(times) * 99 // 100] * 1e6
    print(f"median {median:.1f} us, p99 {p99:.1f} us, {len(times)} calls")


main()
