"""Which licences do the packages on this machine have?

Reads the copyright file of every installed Debian package through tools, in parallel, and prints a
table. Hundreds of tool calls; only the table comes back.

    farcall run --max-calls 5000 examples/licenses.py
"""
import re
from collections import Counter

from farcall import parallel, read_file, search_files

# What the free-form files call the licences that most of them have.
PHRASES = [
    ("GPL-2+", r"GNU General Public License.{0,200}version 2"),
    ("GPL-3+", r"GNU General Public License.{0,200}version 3"),
    ("LGPL", r"GNU (Lesser|Library) General Public License"),
    ("Apache-2.0", r"Apache License,? +Version 2"),
    ("MIT", r"Permission is hereby granted, free of charge"),
    ("BSD", r"Redistribution and use in source and binary forms"),
    ("public-domain", r"public domain"),
]


# One licence has many spellings.
SAME = {"expat": "MIT", "bsd-3-clause": "BSD-3-clause", "bsd-2-clause": "BSD-2-clause"}


def licences_of(text):
    """The licences that one copyright file names, in the machine-readable form or in prose."""
    named = re.findall(r"^License: *([^\s,]+)", text, re.MULTILINE)
    if named:
        return sorted({SAME.get(name.lower(), name) for name in named})
    flat = " ".join(text.split())
    found = [name for name, phrase in PHRASES if re.search(phrase, flat, re.IGNORECASE)]
    return found or ["(not recognised)"]


files = search_files(pattern="copyright", target="files", path="/usr/share/doc", limit=10000)
paths = [path for path in files["files"] if path.endswith("/copyright")]
texts = parallel([(read_file, {"path": path, "limit": 5000}) for path in paths])

counts = Counter()
packages = Counter()
for path, text in zip(paths, texts):
    names = licences_of(text["content"])
    counts.update(names)
    packages[len(names)] += 1

print(f"{len(paths)} packages, {len(counts)} licences\n")
print(f"{'licence':<28}{'packages':>9}")
for name, count in counts.most_common(15):
    print(f"{name:<28}{count:>9}")
