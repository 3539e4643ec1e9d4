# SPDX-License-Identifier: MIT
# Feeds the decoder of runner/runner.py with mutated frames: SEED COUNT DIR. Nothing but its own
# error may come out of it, in whatever pieces they come, and what it says itself is well formed.
import os
import random
import select
import signal
import sys

seed, count, scratch = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/../../runner/runner.py", "rb") as file:
    text = file.read()
pages = text.split(b"\f")
head, start, _ = pages[0].partition(b"\ntry:\n    main(")
assert start
wire = {"__name__": "farcall-runner", "t": text}
exec(compile(head, "runner.py", "exec"), wire)
WireError, Runner = wire["WireError"], wire["Runner"]
OPEN, DATA, END, WINDOW, RESET, ACK, PING, PONG = range(1, 9)
# One that hangs ends by this.
signal.alarm(120)
os.chdir(scratch)


class Checked(Runner):
    """Starts nothing, and writes nowhere but here."""

    def opened(self, number, request):
        words = request.split(b"\0")
        if any(word[:1] == b"/" or b".." in word for word in words):
            request = b"pipe\0"
        elif words[0] == b"exec":
            wire["need"](wire["PROGRAMS"])
            try:
                wire["Options"](words[3:-1])
            except (ValueError, OSError, OverflowError):
                pass  # what opened() makes an answer of
            request = b"pipe\0"
        super().opened(number, request)


def frame(number, kind, payload=b"", size=None):
    size = len(payload) if size is None else size
    return number.to_bytes(4, "big") + bytes([kind]) + size.to_bytes(3, "big") + payload


def honest():
    return [
        frame(2, OPEN, b"pipe\0"), frame(4, OPEN, b"pipe\0"),
        frame(6, OPEN, b"exec\0002\0004\0--level\0subreaper\0--grace-ms\00010\0--rlimit\0core=0\0"
              b"--environ\0005\0--words\00012\0"),
        frame(6, DATA, b"A=b\0x\0sleep\0009\0"), frame(4, END), frame(2, DATA, b"input" * 40),
        frame(2, WINDOW, b"\0\1\0\0"), frame(0, PING), frame(0, ACK, b"\0" * 8),
        frame(8, OPEN, b"mkdir\0here\0"), frame(8, WINDOW, b"\0\0\0\1"),
        frame(10, OPEN, b"put\0file\000600\0004\0"), frame(10, DATA, b"text"), frame(10, END),
        frame(12, OPEN, b"get\0file\0000\000100\0"), frame(12, RESET),
        frame(14, OPEN, b"listen\0socket\0"), frame(6, DATA, b"signal 18\n"), frame(0, PONG),
        frame(16, OPEN, b"nothing\0"), frame(2, END), frame(16, DATA, b"x" * 1000),
    ]


SOME = [b"\0", b"\xff", b"\x7f", b"\x80", b"\0" * 4, b"\xff" * 4, b"9" * 30, b"-1", b"\n"]


def mutated(rng):
    frames = honest()
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(frames))
        what = rng.randrange(5)
        if what == 0:
            frames.insert(at, frames[rng.randrange(len(frames))])
        elif what == 1:
            del frames[at]
        elif what == 2:
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        elif what == 3:
            payload = bytes(rng.randrange(256) for _ in range(rng.randrange(12)))
            size = rng.choice([None, None, rng.randrange(1 << 24)])
            frames.insert(at, frame(rng.randrange(24), rng.randrange(11), payload, size))
        else:
            frames.insert(at, frame(2, DATA, b"x" * rng.choice([32768, 32769, 65536])))
    data = bytearray(b"".join(frames))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at + 1] = rng.choice(SOME)
        elif what == 2:
            del data[at:at + rng.randrange(1, 12)]
        else:
            del data[at + 1:]
    return bytes(data)


def well_formed(data):
    while data:
        assert len(data) >= 8, data
        size = int.from_bytes(data[5:8], "big")
        assert OPEN <= data[4] <= PONG and size <= 32768 and len(data) >= 8 + size, data[:40]
        data = data[8 + size:]


def fed(pieces):
    """Whether the rules were broken, and all that it said."""
    runner = Checked("0" * 32, 1, 45000, None)
    runner.poll, said, broken = select.poll(), b"", False
    try:
        for piece in pieces:
            runner.feed(piece)
    except WireError:
        broken = True
    for _ in range(100):
        runner.fill()
        said += b"".join(runner.frames)
        if not runner.frames:
            break
        runner.written(runner.frames_size)
    assert not runner.frames and runner.frames_size == 0
    # What a frame that did not come to its end may cost.
    assert len(runner.input) <= 8 + 32768 or broken
    for channel in list(runner.channels.values()):
        channel.close()
    assert not runner.channels and not runner.events, runner.events
    well_formed(said)
    return broken


broken, left = 0, len(os.listdir("/proc/self/fd"))
for case in range(count):
    rng = random.Random("{} {}".format(seed, case))
    data = mutated(rng)
    try:
        outcome = fed([data])
        broken += outcome
        if case % 4 == 0:
            cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 40)))
            pieces = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
            assert fed(pieces) == outcome, "it matters in what pieces they come"
    except BaseException:
        sys.stderr.write("seed {} case {}: {!r}\n".format(seed, case, data[:400]))
        raise
assert len(os.listdir("/proc/self/fd")) == left, "descriptors are left"
print(count, broken > count // 10, broken < count * 9 // 10)
