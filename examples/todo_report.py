"""Collects the TODO and FIXME remarks of a source tree and writes them to a Markdown file.

    farcall run examples/todo_report.py -- /usr/lib/python3 todo.md
"""
import sys
from collections import defaultdict

from farcall import search_files, write_file

tree = sys.argv[1] if len(sys.argv) > 1 else "."
target = sys.argv[2] if len(sys.argv) > 2 else "todo.md"

found = search_files(pattern=r"(TODO|FIXME)\b", path=tree, file_glob="*.py", limit=2000)
by_file = defaultdict(list)
for match in found["matches"]:
    by_file[match["path"]].append(match)

lines = [f"# Open ends in {tree}", ""]
for path in sorted(by_file, key=lambda name: -len(by_file[name])):
    lines.append(f"## {path} ({len(by_file[path])})")
    lines += [f"- line {match['line']}: {match['content'].strip()[:120]}" for match in by_file[path]]
    lines.append("")

write_file(target, "\n".join(lines))
print(f"{sum(map(len, by_file.values()))} remarks in {len(by_file)} files -> {target}")
