#!/usr/bin/python3
"""One tool call from a Python script, side by side: the bare floors (an echo of the same JSON over a
Unix socket, host in C and in LuaJIT), farcall with two policies on, execnet, mitogen.

    bench/calls.py BUILD_DIR [ROUNDS] [CALLS]

Prints the median over the rounds of each round's median, in microseconds, and its ratio to the
LuaJIT floor. The contestants take turns within each round, so a machine that changes its speed
changes it for all.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
CALLS = int(sys.argv[3]) if len(sys.argv) > 3 else 5000
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"

SCRIPT = """
import time
from farcall import echo
for i in range(200):
    echo(i)
times = []
for i in range(%d):
    began = time.perf_counter()
    echo(i)
    times.append(time.perf_counter() - began)
times.sort()
print(times[len(times) // 2] * 1e6)
""" % CALLS


def floor(server):
    """Median microseconds of a bare echo server, asked by a bare Python client."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        host = subprocess.Popen(server + [path])
        try:
            while not os.path.exists(path):
                time.sleep(0.005)
            client = [PYTHON, os.path.join(HERE, "echo_client.py"), path, str(CALLS)]
            answer = subprocess.run(client, capture_output=True, text=True, check=True)
        finally:
            host.kill()
            host.wait()
        return float(answer.stdout.split()[1])


def farcall():
    command = [BUILD + "/farcall", "run", "-C", os.path.join(HERE, "config.lua"), "-c", SCRIPT]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def timed(call):
    for i in range(200):
        call(i)
    times = []
    for i in range(CALLS):
        began = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def execnet_call():
    import execnet

    gateway = execnet.makegateway("popen//python=" + PYTHON)
    channel = gateway.remote_exec(
        "import json\n"
        "while True:\n"
        "    request = json.loads(channel.receive())\n"
        "    channel.send(json.dumps({'id': request['id'], 'result': {'n': request['args']['n']}}))"
    )

    def call(i):
        channel.send(json.dumps({"id": i, "tool": "echo", "args": {"n": i}}))
        return json.loads(channel.receive())

    try:
        return timed(call)
    finally:
        gateway.exit()


# mitogen sends functions by module; it needs one with a name, so it runs as a program of its own.
MITOGEN = """
import json, statistics, sys, time
import mitogen.core, mitogen.master, mitogen.utils
sys.path.insert(0, %r)
import mitogen_echo

@mitogen.main()
def main(router):
    context = router.local(python_path=%r)
    def call(i):
        return json.loads(context.call(mitogen_echo.echo, json.dumps({"id": i, "args": {"n": i}})))
    for i in range(200):
        call(i)
    times = []
    for i in range(%d):
        began = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - began)
    print(statistics.median(times) * 1e6)
"""

MITOGEN_ECHO = """
import json
def echo(text):
    request = json.loads(text)
    return json.dumps({"id": request["id"], "result": {"n": request["args"]["n"]}})
"""


def mitogen_call():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "mitogen_echo.py"), "w", encoding="utf-8") as file:
            file.write(MITOGEN_ECHO)
        program = os.path.join(folder, "bench_mitogen.py")
        with open(program, "w", encoding="utf-8") as file:
            file.write(MITOGEN % (folder, PYTHON, CALLS))
        answer = subprocess.run([PYTHON, program], capture_output=True, text=True, check=True)
        return float(answer.stdout)


CONTESTANTS = [
    ("floor: C host", lambda: floor([BUILD + "/bench/echo_floor"])),
    ("floor: LuaJIT host", lambda: floor(["luajit", os.path.join(HERE, "echo_floor.lua")])),
    ("farcall, two policies", farcall),
    ("execnet", execnet_call),
    ("mitogen", mitogen_call),
]

os.environ["PATH"] = "/usr/bin:/bin"
results = {name: [] for name, _ in CONTESTANTS}
for _ in range(ROUNDS):
    for name, contestant in CONTESTANTS:
        results[name].append(contestant())

base = statistics.median(results["floor: LuaJIT host"])
print(f"{'one call from Python':<24}{'median us':>10}{'min':>8}{'max':>8}{'ratio':>8}")
for name, values in results.items():
    middle = statistics.median(values)
    print(f"{name:<24}{middle:>10.1f}{min(values):>8.1f}{max(values):>8.1f}{middle / base:>8.2f}")
