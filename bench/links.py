#!/usr/bin/python3
"""One tool call that crosses a link, side by side: farcall by stream with two policies on, mitogen,
execnet (ssh only). The contestants take turns within each round; medians of the rounds' medians.

    bench/links.py BUILD_DIR CONFIG SSH_PORT SSH_KEYS_DIR CONTAINER [ROUNDS] [CALLS]
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

BUILD, CONFIG, PORT, KEYS, BOX = sys.argv[1:6]
ROUNDS = int(sys.argv[6]) if len(sys.argv) > 6 else 3
CALLS = int(sys.argv[7]) if len(sys.argv) > 7 else 2000
PYTHON = "/usr/bin/python3"

SCRIPT = """
import statistics, time
from farcall import echo
for i in range(200):
    echo(n=i)
times = []
for i in range(%d):
    began = time.perf_counter()
    echo(n=i)
    times.append(time.perf_counter() - began)
print(statistics.median(times) * 1e6)
""" % CALLS

MITOGEN = """
import json, statistics, sys, time
import mitogen.core, mitogen.master, mitogen.utils
sys.path.insert(0, %r)
import mitogen_echo

@mitogen.main(log_level="ERROR")
def main(router):
    context = router.%s
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


def farcall(backend):
    command = [
        BUILD + "/farcall", "run", "-C", CONFIG, "-b", backend, "--transport", "stream", "-c", SCRIPT
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def mitogen(way):
    # It sends functions by module, so it runs as a program of its own.
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "mitogen_echo.py"), "w", encoding="utf-8") as file:
            file.write(MITOGEN_ECHO)
        program = os.path.join(folder, "bench_mitogen.py")
        with open(program, "w", encoding="utf-8") as file:
            file.write(MITOGEN % (folder, way, CALLS))
        answer = subprocess.run([PYTHON, program], capture_output=True, text=True, check=True)
        return float(answer.stdout)


def execnet_ssh():
    import execnet

    gateway = execnet.makegateway(
        f"ssh=-p {PORT} -i {KEYS}/ed25519 -o UserKnownHostsFile={KEYS}/known_hosts "
        f"farcall-far@127.0.0.1//python={PYTHON}"
    )
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
        for i in range(200):
            call(i)
        times = []
        for i in range(CALLS):
            began = time.perf_counter()
            call(i)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e6
    finally:
        gateway.exit()


SSH_WAY = (
    f"ssh(hostname='127.0.0.1', port={PORT}, username='farcall-far', "
    f"identity_file='{KEYS}/ed25519', check_host_keys='ignore', python_path='{PYTHON}')"
)
DOCKER_WAY = f"docker(container='{BOX}', python_path='{PYTHON}')"

LINKS = {
    "ssh": [
        ("farcall", lambda: farcall("ssh")),
        ("mitogen", lambda: mitogen(SSH_WAY)),
        ("execnet", execnet_ssh),
    ],
    "docker": [
        ("farcall", lambda: farcall("docker")),
        ("mitogen", lambda: mitogen(DOCKER_WAY)),
    ],
}

print(f"{'one call from Python':<24}{'median us':>10}{'min':>8}{'max':>8}{'ratio':>8}")
for link, contestants in LINKS.items():
    results = {name: [] for name, _ in contestants}
    for _ in range(ROUNDS):
        for name, contestant in contestants:
            results[name].append(contestant())
    base = statistics.median(results["farcall"])
    for name, values in results.items():
        middle = statistics.median(values)
        print(
            f"{link + ': ' + name:<24}{middle:>10.1f}{min(values):>8.1f}{max(values):>8.1f}"
            f"{middle / base:>8.2f}"
        )
