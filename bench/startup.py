#!/usr/bin/python3
"""A whole `farcall run -c pass` beside a bare `python3 -c pass`: medians in milliseconds, in turns.

    bench/startup.py BUILD_DIR [ROUNDS]
"""
import os
import statistics
import subprocess
import sys
import time

BUILD = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 31
os.environ["PATH"] = "/usr/bin:/bin"

CONTESTANTS = {
    "python3 -c pass": ["/usr/bin/python3", "-c", "pass"],
    "farcall run -c pass": [BUILD + "/farcall", "run", "-c", "pass"],
    "farcall version": [BUILD + "/farcall", "version"],
}

times = {name: [] for name in CONTESTANTS}
for turn in range(ROUNDS + 2):
    for name, command in CONTESTANTS.items():
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if turn >= 2:
            times[name].append(time.perf_counter() - began)

base = statistics.median(times["python3 -c pass"])
for name, values in times.items():
    middle = statistics.median(values)
    print(f"{name:<22}{middle * 1e3:>8.1f} ms{(middle - base) * 1e3:>+8.1f} ms")
