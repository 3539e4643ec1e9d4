"""Which directories below a place take the most room, and which files in them are the largest?

    farcall run examples/disk_hogs.py -- /usr
"""
import sys

from farcall import shell_quote, terminal

place = sys.argv[1] if len(sys.argv) > 1 else "/usr"
answer = terminal(f"du -xk --max-depth=2 {shell_quote(place)} 2>/dev/null | sort -rn | head -12")
rows = [line.split("\t", 1) for line in answer["output"].splitlines()]

print(f"{'MiB':>8}  directory")
for size, path in rows:
    print(f"{int(size) / 1024:>8.1f}  {path}")

largest = rows[1][1] if len(rows) > 1 else place
answer = terminal(
    f"find {shell_quote(largest)} -xdev -type f -printf '%s\\t%p\\n' | sort -rn | head -5"
)
print(f"\nlargest files of {largest}")
for line in answer["output"].splitlines():
    size, path = line.split("\t", 1)
    print(f"{int(size) / 1048576:>8.1f}  {path}")
