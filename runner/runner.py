# SPDX-License-Identifier: MIT
# farcall's runner in Python 3.6 or later: does what the static one (serve.c) does, where that cannot
# run. docs/wire.md says what it speaks, the head of supervisor.c what the control lines are.
#
# It comes in over the standard input of the exec that becomes it, and nothing behind it may be read
# with it. So whoever sends SIZE bytes of it starts
#
#   python3 -c 'import os
#   t = b""
#   while len(t) < SIZE:
#       p = os.read(0, SIZE - len(t))
#       if not p:
#           raise SystemExit(1)
#       t += p
#   exec(compile(t.split(b"\f")[0], "farcall-runner", "exec"))' serve MARK GRACE_MS [DIR]
#
# or `attach MARK DIR`, or `connect PATH`. Compiling all of it takes as long as starting Python, so it has
# pages: the first says hello, each other one is compiled when it is needed or when nothing is to be
# done. Imported is only what is built in or costs nothing: a script waits for this, and it may
# become of it. With the option --python an exec is no new interpreter but goes on in this one.
#
# Processes: the runner moves bytes. Each exec has a keeper, a fork that starts the program, leads
# the control lines and ends the tree. When the runner dies, however, every keeper sees the end of
# its control socket. When a keeper is killed, its script goes with it, and the runner, to which the
# orphans come, kills them.
#
# How a tree is held: as "subreaper" orphans become children of the keeper, so that every descendant
# is found by its parents in /proc, whatever sessions or groups it has made for itself. That takes
# prctl, for which the C half of ctypes is enough. A Python without it has "group": what descends
# from the keeper, what is in a session that the tree has had, and what has the tree's mark in its
# environment. Only a process that has left all three is not found. Both stop all, until nobody new
# is met, before they kill: what is stopped cannot fork.
import sys
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # a file in the working directory is not the module that is meant
import _signal
import _socket
import errno
import os
import select
from _collections import deque
from time import monotonic

OPEN, DATA, END, WINDOW, RESET, ACK, PING, PONG = range(1, 9)
SIZES = {END: 0, WINDOW: 4, RESET: 0, ACK: 8, PING: 0, PONG: 0}
PIECE = 32768  # bytes of a frame at most
FIRST_WINDOW = 65536
WIDE_WINDOW = 1 << 20  # what a stream may send ahead of its reader
ACK_EVERY = 65536
MAX_CHANNELS = 1024
MANY_CHANNELS = 200  # beyond which the usual limit of descriptors is too low
MAX_CONNECTIONS = 512
MAX_DESCRIPTORS = 65536
MAX_PENDING = 262144  # what may wait in a channel before its source is not read any more
MAX_AHEAD = 65536  # what is put in order for the link ahead of it
MAX_ANSWERS = 1 << 20  # and with the answers, beyond which the engine is not listened to
MAX_KEPT = 4 << 20  # what the engine has not acknowledged
MAX_REST = 2 << 20  # what a pipe may still give when its tree has gone
ORPHAN_GRACE_MS = 1000  # TERM to KILL when the engine has gone
LEASE_MS = 45000  # how long the engine may be silent before its link counts as lost
GIVE_UP_MS = 10000  # how long killing may take
TOUCH_MS = 30000  # directories of live runs must not look old

MARK_SIZE = 32
MASK = range(1, 32)
CAUGHT = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGHUP)


PROGRAMS, SERVICES, SCRIPT, TREES, DOOR = range(1, 6)
pages = globals()["t"].split(b"\f")
pages[0] = None


def need(number):
    """Has a page of this program compiled."""
    if pages[number]:
        text, pages[number] = pages[number], None
        exec(compile(text, "farcall-runner", "exec"), globals())


def is_coerced():
    """Whether this interpreter has given itself a locale, which is not for other programs."""
    if "LC_CTYPE" in os.environ:
        try:
            with open("/proc/self/environ", "rb") as file:
                return b"\0LC_CTYPE=" not in b"\0" + file.read()
        except OSError:
            pass
    return False


class WireError(Exception):
    """The engine has broken the rules of the wire."""


class Become(BaseException):
    """Leaves everything that the runner was doing: this process is the script's now."""


def now_ms():
    return int(monotonic() * 1000)


def words_of(block):
    return block.split(b"\0")[:-1]


def number_of(word, base=10):
    number = int(word, base) if word.isdigit() else -1
    if not 0 <= number < 1 << 63:
        raise ValueError
    return number


def close(*fds):
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass


def on_socket(fd, method, *arguments):
    """Descriptors are plain numbers here, so that no object closes one behind our back."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    try:
        return getattr(sock, method)(*arguments)
    finally:
        sock.detach()


def half_close(fd):
    try:
        on_socket(fd, "shutdown", _socket.SHUT_WR)
    except OSError:
        pass


def watch_signals(*extra):
    """What can be polled for the signals that ask to end, and further ones."""
    wake, ring = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(ring, False)
    _signal.set_wakeup_fd(ring)
    for number in CAUGHT + extra:
        _signal.signal(number, lambda *_: None)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    return wake


def prctl(option, value):
    """0, or -1 where it cannot be called."""
    try:
        import _ctypes
        function = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")
        return _ctypes.call_function(function, (option, value, 0, 0, 0))
    except (ImportError, AttributeError, OSError):
        return -1


def set_dumpable(value):
    """Another process of the same user cannot attach to what is not dumpable."""
    return prctl(4, value)


def set_subreaper():
    return prctl(36, 1) == 0


class Channel:
    """Two directions. Kinds of channels say what becomes of what is in them."""

    window = FIRST_WINDOW
    stays = False  # until all trees have ended
    source = sink = None  # descriptors, where bytes come from and go to

    def __init__(self, runner, number):
        self.runner, self.number = runner, number
        self.credit = self.allowed = FIRST_WINDOW
        self.pending, self.pending_size, self.waits = deque(), 0, False
        self.inbox, self.taken = deque(), 0
        self.finished = self.end_sent = self.peer_ended = self.closed = False

    def send(self, piece):
        self.pending.append(piece)
        self.pending_size += len(piece)
        self.runner.schedule(self)

    def finish(self):
        self.finished = True
        self.runner.schedule(self)

    def answer(self, text):
        """The last word on this channel."""
        self.send(text.encode() + b"\n")
        self.finish()

    def fail(self, stage, error):
        self.answer("error {} {}".format(stage, error.errno or errno.ENAMETOOLONG))

    def took(self, size):
        self.taken += size
        if not self.peer_ended and self.taken * 2 >= self.window:
            self.grant(self.taken)
            self.taken = 0

    def widen(self):
        """Lets the engine send as far ahead as a stream of bytes deserves."""
        if not self.peer_ended:
            self.window = WIDE_WINDOW
            self.grant(WIDE_WINDOW - FIRST_WINDOW)

    def grant(self, size):
        self.allowed += size
        self.runner.put(self.number, WINDOW, size.to_bytes(4, "big"))

    def arrived(self):
        """The inbox has something more, or the engine's direction has ended."""
        while self.inbox:
            self.took(len(self.inbox.popleft()))

    def drained(self):
        """Not much is pending any more."""

    def settle(self):
        if self.end_sent and self.peer_ended and not self.inbox:
            self.close()

    def close(self):
        """Over, or given up by the engine."""
        if not self.closed:
            self.closed = True
            self.runner.channels.pop(self.number, None)
            self.released()

    def released(self):
        pass

    def touch(self):
        pass


class Stream(Channel):
    """Joined with descriptors. Before they are there, what comes is kept."""

    joined = False
    rest = None  # bytes that the source may still give, when who should write to it has gone

    def join(self, source, sink):
        self.source, self.sink, self.joined = source, sink, True
        self.widen()
        self.arrived()
        self.watch()

    def fds(self):
        return {self.source, self.sink} - {None}

    def watch(self):
        for fd in self.fds():
            events = 0
            if fd == self.source and self.pending_size < MAX_PENDING:
                events |= select.POLLIN
            if fd == self.sink and self.inbox:
                events |= select.POLLOUT
            self.runner.watch(fd, events, self.pump)

    def pump(self, fd, events):
        if fd == self.sink and self.inbox:
            self.arrived()
        if fd is not None and fd == self.source and events & ~select.POLLOUT:
            self.fetch()
        self.watch()

    def fetch(self):
        # A pipe holds two pieces.
        rounds = 2 if self.rest is None else MAX_REST
        while rounds > 0 and self.source is not None and self.pending_size < MAX_PENDING:
            rounds -= 1
            try:
                piece = os.read(self.source, PIECE)
            except BlockingIOError:
                if self.rest is not None:
                    self.source_ended()
                return
            except OSError:
                return self.broken()
            if piece:
                self.send(piece)
            if self.rest is not None:
                self.rest -= len(piece)
            if not piece or self.rest is not None and self.rest < 0:
                return self.source_ended()
            if len(piece) < PIECE and self.rest is None:
                return

    def outlive(self):
        """Takes what is left. Who holds the pipe now does not belong to the tree."""
        if self.source is not None:
            self.rest = MAX_REST
            self.pump(self.source, select.POLLIN)

    def drained(self):
        if self.rest is not None:
            self.pump(self.source, select.POLLIN)
        else:
            self.watch()

    def broken(self):
        self.runner.reset(self)

    def source_ended(self):
        fd, self.source = self.source, None
        self.let_go(fd)
        self.finish()

    def sink_ended(self):
        fd, self.sink = self.sink, None
        if fd is not None:
            if fd == self.source:
                half_close(fd)
            self.let_go(fd)

    def let_go(self, fd):
        if fd in self.fds():
            return
        self.runner.watch(fd, 0)
        close(fd)

    def arrived(self):
        while self.inbox and (self.sink is not None or self.joined):
            piece = self.inbox[0]
            try:
                # What nobody reads any more is taken all the same.
                size = len(piece) if self.sink is None else os.write(self.sink, piece)
            except BlockingIOError:
                break
            except OSError:
                self.sink_ended()
                continue
            self.took(size)
            if size == len(piece):
                self.inbox.popleft()
            else:
                self.inbox[0] = piece[size:]
        if self.peer_ended and not self.inbox:
            self.sink_ended()
            self.settle()
        self.watch()

    def released(self):
        self.sink_ended()
        if self.source is not None:
            self.source_ended()


class Link:
    """A standard input and output. Others may have them too, so their flags are left alone."""

    def __init__(self, source, sink):
        self.source, self.sink, self.guard = source, sink, None
        self.turn = None  # of one that stays for this time only
        mode = os.fstat(sink).st_mode & 0o170000
        self.socket = mode == 0o140000
        self.shared = not self.socket
        # Of a pipe, one whose flags are our own. A file would be written to from its start.
        if mode == 0o010000:
            try:
                own = os.open("/proc/self/fd/{}".format(sink), os.O_WRONLY | os.O_NONBLOCK)
                os.close(sink)
                self.sink, self.shared = own, False
            except OSError:
                pass

    def write(self, pieces):
        """How much has been taken. Raises OSError."""
        if self.socket:
            return on_socket(self.sink, "sendmsg", pieces, [], _socket.MSG_DONTWAIT)
        if self.shared:
            poll = select.poll()
            poll.register(self.sink, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError
            # A pipe that is ready takes so much at once.
            return os.write(self.sink, pieces[0][:select.PIPE_BUF])
        return os.writev(self.sink, pieces)

    def say(self, line):
        line = line.encode()
        while line:
            try:
                line = line[self.write([line]):]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.sink, select.POLLOUT)
                if not poll.poll(5000):
                    raise OSError(errno.ETIMEDOUT, "")

    def close(self):
        close(self.source, self.sink, *([] if self.guard is None else [self.guard]))


class Token:
    """What who attaches must know. It is kept where no fork has a copy of it: in a pipe."""

    SIZE = 64

    def __init__(self, needed):
        self.line, self.missing = bytearray(), self.SIZE + 1
        self.keep = os.pipe() if needed else None

    def read(self, fd):
        """Of the first line, no byte too much. Raises OSError, WireError."""
        piece = bytearray(self.missing)
        size = os.readv(fd, [piece])
        if size == 0:
            raise OSError(errno.EPIPE, "")
        self.line += piece[:size]
        piece[:] = bytes(len(piece))
        self.missing -= size
        if not self.missing:
            if self.line[-1:] != b"\n":
                raise WireError
            if self.keep:
                os.writev(self.keep[1], [memoryview(self.line)[:self.SIZE]])
            self.line[:] = bytes(len(self.line))

    def matches(self, other):
        from _operator import _compare_digest
        token = bytearray(self.SIZE)
        if not self.keep or self.missing:
            return False
        os.readv(self.keep[0], [token])
        os.writev(self.keep[1], [token])
        same = _compare_digest(token, other)
        token[:] = other[:] = bytes(self.SIZE)
        return same


# verb -> page, what serves it, and the word for its failure
REQUESTS = {
    b"pipe": (0, "Stream", "pipe"), b"quit": (0, "leave", "quit"),
    b"exec": (PROGRAMS, "start", "fork"), b"listen": (SERVICES, "Listener", "listen"),
    b"mkdir": (SERVICES, "Directory", "mkdir"), b"put": (SERVICES, "Put", "open"),
    b"get": (SERVICES, "Get", "open"),
}


def leave(runner, number):
    runner.over = True
    return Channel(runner, number)


class Runner:
    """Carries the bytes of all channels over one link at a time."""

    def __init__(self, mark, grace, lease, directory):
        self.mark, self.grace, self.lease, self.directory = mark, grace, lease, directory
        self.poll, self.handlers, self.events = select.poll(), {}, {}
        self.channels, self.keepers = {}, {}
        self.last_theirs, self.last_ours = 0, -1
        self.input, self.received, self.unconfirmed = b"", 0, 0
        # What goes out: frames in order; those that were sent and may be needed again; who waits.
        self.frames, self.frames_size = deque(), 0
        self.kept, self.kept_size, self.sent, self.confirmed = deque(), 0, 0, 0
        self.ready = deque()
        self.link = self.lost_at = self.descriptors = None
        self.over = self.has_swept = False

    # Descriptors.

    def watch(self, fd, events, handler=None):
        if fd is None or self.events.get(fd, 0) == events:
            return
        if events:
            self.handlers[fd], self.events[fd] = handler, events
            self.poll.register(fd, events)
        else:
            # Not with no events: poll tells of hang-ups all the same, and without end.
            del self.handlers[fd], self.events[fd]
            self.poll.unregister(fd)

    # The link.

    def take_link(self, link):
        self.drop_link()
        self.link, self.lost_at, self.heard_at = link, None, now_ms()
        self.listen_to_link(True)

    def listen_to_link(self, room):
        turn = self.link.turn
        wanted = room and not (turn and not turn.left)
        self.watch(self.link.source, select.POLLIN if wanted else 0, self.read_link)

    def drop_link(self):
        if self.link:
            link, self.link, self.lost_at = self.link, None, now_ms()
            for fd in (link.source, link.sink, link.guard):
                self.watch(fd, 0)
            link.close()
            os.dup2(self.null, 2)

    def read_link(self, fd, _):
        self.heard_at = now_ms()
        try:
            if self.token.missing:
                self.token.read(fd)
                return
            turn = self.link.turn
            data = os.read(fd, min(turn.left, 262144) if turn else 262144)
        except OSError:
            data = b""
        if not data:
            return self.drop_link()
        if turn:
            turn.left -= len(data)
            if turn.ignored:
                return
        self.feed(data)

    def flush(self):
        """Writes what the link takes."""
        while self.link:
            self.fill()
            if not self.frames:
                self.watch(self.link.sink, 0)
                break
            pieces = [piece for piece, _ in zip(self.frames, range(64))]
            try:
                size = self.link.write(pieces)
            except BlockingIOError:
                self.watch(self.link.sink, select.POLLOUT, self.link_ready)
                break
            except OSError:
                self.drop_link()
                break
            self.written(size)
            if self.link.turn:
                self.link.turn.said = True
        if self.link and self.link.turn and self.link.turn.over(not self.frames):
            self.drop_link()
        if self.link:
            room = self.frames_size < MAX_ANSWERS
            if not room:
                self.heard_at = now_ms()  # it may have said something
            self.listen_to_link(room)

    def link_ready(self, *_):
        """That something can be written is enough: flush follows."""

    def written(self, size):
        self.sent += size
        self.frames_size -= size
        while size:
            piece = self.frames.popleft()
            if len(piece) > size:
                self.frames.appendleft(piece[size:])
                piece = piece[:size]
            size -= len(piece)
            if self.grace:
                self.kept.append(piece)
                self.kept_size += len(piece)

    def confirm(self, count):
        """The engine has received so many bytes in all."""
        if not self.confirmed <= count <= self.sent:
            raise WireError
        size = count - self.confirmed
        self.confirmed = count
        while size and self.kept:
            piece = self.kept.popleft()
            if len(piece) > size:
                self.kept.appendleft(piece[size:])
                piece = piece[:size]
            size -= len(piece)
            self.kept_size -= len(piece)

    def resume(self, link, count):
        """A new link, whose other end has received so many bytes."""
        self.confirm(count)
        self.frames.extendleft(reversed(self.kept))
        self.frames_size += self.kept_size
        self.kept.clear()
        self.sent, self.kept_size = count, 0
        self.take_link(link)

    # Frames out.

    def put(self, number, kind, payload):
        self.frames.append((number << 32 | kind << 24 | len(payload)).to_bytes(8, "big"))
        self.frames_size += 8 + len(payload)
        if payload:
            self.frames.append(payload)

    def schedule(self, channel):
        if not channel.waits and not channel.closed:
            channel.waits = True
            self.ready.append(channel)

    def fill(self):
        """Puts in order what channels have to send, one piece of each at a time."""
        while self.ready and self.frames_size < MAX_AHEAD and self.kept_size < MAX_KEPT:
            channel = self.ready.popleft()
            channel.waits = False
            if channel.closed:
                continue
            if channel.pending and channel.credit:
                piece = channel.pending.popleft()
                most = min(PIECE, channel.credit)
                if len(piece) > most:
                    channel.pending.appendleft(piece[most:])
                    piece = piece[:most]
                channel.credit -= len(piece)
                channel.pending_size -= len(piece)
                self.put(channel.number, DATA, piece)
                if channel.pending_size < MAX_PENDING:
                    channel.drained()
            if not channel.pending:
                if channel.finished and not channel.end_sent:
                    channel.end_sent = True
                    self.put(channel.number, END, b"")
                    channel.settle()
            elif channel.credit:
                self.schedule(channel)

    def open(self, request):
        self.last_ours += 2
        self.put(self.last_ours, OPEN, request)
        return self.last_ours

    def reset(self, channel):
        if not channel.closed:
            self.put(channel.number, RESET, b"")
            channel.close()

    # Frames in.

    def feed(self, data):
        self.received += len(data)
        self.unconfirmed += len(data)
        data, at = self.input + data, 0
        while len(data) - at >= 8:
            head = int.from_bytes(data[at:at + 8], "big")
            number, kind, size = head >> 32, head >> 24 & 255, head & 0xffffff
            if size > PIECE or not OPEN <= kind <= PONG or SIZES.get(kind, size) != size \
                    or (number == 0) != (kind in (ACK, PING, PONG)):
                raise WireError
            if len(data) - at < 8 + size:
                break
            self.obey(number, kind, data[at + 8:at + 8 + size])
            at += 8 + size
        self.input = data[at:]
        if self.unconfirmed >= ACK_EVERY:
            self.acknowledge()

    def acknowledge(self):
        self.unconfirmed = 0
        self.put(0, ACK, self.received.to_bytes(8, "big"))

    def obey(self, number, kind, payload):
        if kind == OPEN:
            if number & 1 or number <= self.last_theirs:
                raise WireError
            self.last_theirs = number
            return self.opened(number, payload)
        if kind == ACK:
            return self.confirm(int.from_bytes(payload, "big"))
        if kind == PING:
            self.put(0, PONG, b"")
            return self.acknowledge()
        if kind == PONG:
            return
        if number > (self.last_ours if number & 1 else self.last_theirs):
            raise WireError
        channel = self.channels.get(number)
        if channel is None:
            return  # it was under way when the channel was closed
        if kind == WINDOW:
            channel.credit += int.from_bytes(payload, "big")
            if channel.credit > 1 << 31:
                raise WireError
            self.schedule(channel)
        elif kind == RESET:
            channel.close()
        else:
            if channel.peer_ended or len(payload) > channel.allowed:
                raise WireError
            if kind == END:
                channel.peer_ended = True
            elif payload:
                channel.allowed -= len(payload)
                channel.inbox.append(payload)
            channel.arrived()
            channel.settle()

    # Requests.

    def opened(self, number, request):
        if len(self.channels) >= MAX_CHANNELS:
            return self.put(number, RESET, b"")
        words = words_of(request)
        page, name, stage = REQUESTS.get(words[0] if words else b"", (0, "", "request"))
        try:
            if not request.endswith(b"\0"):
                raise ValueError
            if not name:
                raise OSError(errno.ENOSYS, "")
            need(page)
            self.make_room()
            channel = globals()[name](self, number, *words[1:])
        except (OSError, TypeError, ValueError, OverflowError) as error:
            if not isinstance(error, OSError):
                stage, error = "request", OSError(errno.EINVAL, "")
            channel = Channel(self, number)
            channel.fail(stage, error)
        self.channels[number] = channel

    def make_room(self):
        if len(self.channels) > MANY_CHANNELS and not self.descriptors:
            need(PROGRAMS)
            self.descriptors = allow_descriptors()

    # The whole.

    def stop(self, wake, _):
        # A hang-up is no more than a lost link.
        if self.grace and set(os.read(wake, 4096)) == {_signal.SIGHUP}:
            return
        self.over = True

    def serve(self, link):
        self.watch(watch_signals(), select.POLLIN, self.stop)
        self.cwd = os.getcwd()
        os.chdir("/")
        self.coerced = is_coerced()
        self.token = Token(self.grace)
        self.take_link(link)
        link.say("\n{} hello 1 {} {} ? {} -\n".format(
            self.mark, os.getpid(), os.geteuid(), os.uname().machine))
        # While the engine answers.
        set_dumpable(0)
        set_subreaper()
        try:
            self.run()
        except WireError:
            sys.stderr.write("farcall-runner: the engine broke the rules of the wire\n")
        except Exception as error:
            sys.stderr.write("farcall-runner: {}: {}\n".format(type(error).__name__, error))
        need(TREES)
        end(self)

    def run(self):
        ahead, touched = [PROGRAMS, SERVICES, SCRIPT, TREES], now_ms()
        while not self.over:
            self.flush()
            if not self.link:
                timeout = self.lost_at + self.grace - now_ms()
                if timeout <= 0 or self.token.missing:
                    return
            else:
                # The engine lets nobody wait for a sign of life longer than a part of the lease.
                timeout = self.heard_at + self.lease - now_ms()
                if timeout <= 0:
                    self.drop_link()
                    continue
                if self.link.turn and not self.link.turn.left:
                    timeout = min(timeout, max(1, self.link.turn.until - now_ms()))
            ready = self.poll.poll(0 if ahead else min(timeout, TOUCH_MS))
            for fd, events in ready:
                handler = self.handlers.get(fd)
                if handler:
                    handler(fd, events)
            if ahead and not ready:
                need(ahead.pop(0))
            if now_ms() - touched >= TOUCH_MS:
                touched = now_ms()
                for channel in self.channels.values():
                    channel.touch()


def fail(mark, stage, error):
    """The last words where there is no link yet."""
    code = error.errno or errno.ENAMETOOLONG
    os.write(1, "\n{} error {} {} {}\n".format(mark, stage, code, os.strerror(code)).encode())
    os._exit(1)


def serve(mark, grace, lease, directory):
    stage = "directory"
    try:
        runner = Runner(mark, grace, lease, directory)
        if grace:
            need(SERVICES)
            need(DOOR)
            open_door(runner)
        stage = "link"
        runner.null = os.open(os.devnull, os.O_RDWR)
        link = Link(os.dup(0), os.dup(1))
    except OSError as error:
        fail(mark, stage, error)
    # The standard descriptors stay taken, so that no other one gets their numbers.
    os.dup2(runner.null, 0)
    os.dup2(runner.null, 1)
    runner.serve(link)


def main(verb="", *words):
    right = verb in ("serve", "attach") and len(words) in (2, 3) and len(words[0]) == MARK_SIZE
    grace, _, lease = words[1].partition(":") if right else ("", "", "")
    if verb == "serve" and grace.isdigit() and (lease or "0").isdigit():
        directory = os.fsencode(words[2]) if len(words) > 2 else None
        serve(words[0], int(grace) if directory else 0, int(lease or LEASE_MS), directory)
    elif verb == "attach" and right and len(words) == 2 or verb == "connect" and len(words) == 1:
        need(SERVICES)
        need(DOOR)
        globals()[verb](*words)
    else:
        sys.stderr.write("usage: farcall-runner serve MARK GRACE_MS[:LEASE_MS] [DIR]\n"
                         "       farcall-runner attach MARK DIR\n"
                         "       farcall-runner connect PATH\n")
        os._exit(2)
    os._exit(0)


try:
    main(*sys.argv[1:])
except Become as become_what:
    script = become_what.args
# In names of its own: those here are the script's now.
need(SCRIPT)
own = dict(globals())
own["report"] = type(report)(report.__code__, own)
type(become)(become.__code__, own)(*script)



class Options:
    """Those of farcall-supervisor, and --python."""

    def __init__(self, words):
        self.level, self.cwd, self.rlimits, self.python = "auto", None, [], False
        self.numbers = {b"--grace-ms": 2000, b"--linger-ms": 100, b"--deadline-ms": -1,
                        b"--environ": 0, b"--words": 0}
        words = iter(words)
        for name in words:
            if name == b"--python":
                self.python = True
                continue
            value = next(words, None)
            if value is None:
                raise ValueError
            if name in self.numbers:
                self.numbers[name] = number_of(value)
            elif name == b"--level":
                self.level = value.decode()
            elif name == b"--cwd":
                self.cwd = value
            elif name == b"--rlimit":
                limit, number = value.split(b"=")
                if limit not in b"as core cpu data fsize memlock nofile nproc stack".split():
                    raise ValueError
                self.rlimits.append((limit.decode().upper(), number_of(number)))
            else:
                raise ValueError


def limit_resources(limits):
    import resource
    for name, value in limits:
        kind = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(kind)[1]
        low = value if value < (1 << 63) - 1 else resource.RLIM_INFINITY
        if hard != resource.RLIM_INFINITY and (low == resource.RLIM_INFINITY or low > hard):
            low = hard
        top = low
        # One second more until SIGKILL, so that SIGXCPU comes first and can be told apart.
        if name == "CPU" and low != resource.RLIM_INFINITY and low != hard:
            top += 1
        resource.setrlimit(kind, (low, top))


def execute(words, variables):
    """As execvpe of C does, with sh for what has no interpreter line. Raises OSError."""
    name = words[0]
    places = variables.get(b"PATH", b"/bin:/usr/bin").split(b":")
    if not name or b"/" in name:
        places = [b""]
    failure = None
    for place in places:
        path = place + b"/" + name if place else name
        try:
            try:
                os.execve(path, words, variables)
            except ValueError:
                raise OSError(errno.EINVAL, "")
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                os.execve(b"/bin/sh", [b"/bin/sh", path] + words[1:], variables)
        except OSError as error:
            if failure is None or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error
    raise failure


def close_others(*kept):
    try:
        close(*(fd for fd in map(int, os.listdir("/proc/self/fd")) if fd not in kept))
    except OSError:
        # Of what is not dumpable it can only be read by root.
        low = 0
        for fd in sorted(kept) + [min(os.sysconf("SC_OPEN_MAX"), MAX_DESCRIPTORS)]:
            os.closerange(low, fd)
            low = fd + 1


def reset_signals():
    _signal.set_wakeup_fd(-1)
    for number in MASK:
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except OSError:
                pass
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def set_death_signal():
    return prctl(1, _signal.SIGKILL)


def signal_to(function, target, number):
    try:
        function(target, number)
    except OSError:
        pass


class Keeper:
    """One exec, in a process of its own: starts the program and ends its tree."""

    RUN, LINGER, TERM, KILL = range(4)

    def __init__(self, control, options, mark):
        self.control, self.options, self.mark = control, options, mark
        self.main, self.phase, self.phase_end = 0, self.RUN, None
        self.pieces, self.engine_gone, self.sessions = b"", False, set()
        self.stage, self.left = "session", 0

    def tell(self, *words):
        try:
            os.write(self.control, " ".join(map(str, words)).encode() + b"\n")
        except OSError:
            pass  # if the runner has gone, that is noticed when reading

    def take(self, size):
        block = b""
        while len(block) < size:
            piece = os.read(self.control, size - len(block))
            if not piece:
                os._exit(1)
            block += piece
        return words_of(block)

    def run(self):
        numbers = self.options.numbers
        block = self.take(numbers[b"--environ"])
        words = self.take(numbers[b"--words"])
        self.level = "group"
        wanted = self.options.level
        if wanted in ("auto", "subreaper") and set_subreaper():
            self.level = "subreaper"
        if wanted not in ("auto", self.level):
            self.tell("exec-failed level", errno.ENOTSUP)
        else:
            self.supervise(words, block)
        if self.left:
            self.tell("left", self.left)
        else:
            self.tell("gone")

    def supervise(self, words, block):
        deadline = self.options.numbers[b"--deadline-ms"]
        self.deadline = None if deadline < 0 else now_ms() + deadline
        self.wake = watch_signals(_signal.SIGCHLD)
        self.tell("level", self.level)
        failure = self.start(words, block)
        # What is the script's is let go: its pipes end when it ends, and its directory is not held.
        close(0, 1, 2)
        os.chdir("/")
        if failure:
            self.tell("exec-failed", failure)
        else:
            self.tell("started", self.main)
            self.left = self.attend()

    def start(self, words, block):
        """None when the program runs; else what failed."""
        heard, said = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            return "fork {}".format(error.errno)
        if pid == 0:
            try:
                self.be_program(words, block, said, parent)
            except (OSError, ValueError) as error:
                code = getattr(error, "errno", None) or errno.EINVAL
                os.write(said, "{} {}".format(self.stage, code).encode())
            os._exit(127)
        os.close(said)
        failure = os.read(heard, 100).decode()
        os.close(heard)
        if failure:
            os.waitpid(pid, 0)
        else:
            self.main = pid
            self.sessions.add(pid)
        return failure

    def be_program(self, words, block, said, parent):
        self.stage = "session"
        set_death_signal()
        set_dumpable(1)
        if os.getppid() != parent:
            os._exit(127)
        os.setsid()
        if self.options.rlimits:
            self.stage = "rlimit"
            limit_resources(self.options.rlimits)
        if self.options.cwd is not None:
            self.stage = "cwd"
            os.chdir(self.options.cwd)
        self.stage = "exec"
        reset_signals()
        if not words:
            raise ValueError
        new = dict(entry.split(b"=", 1) for entry in block)
        if self.level == "group":
            new[b"FARCALL_MARK"] = self.mark
        elif self.options.python:
            need(SCRIPT)
            if can_become(words[0], new):
                close_others(0, 1, 2)
                raise Become(words, new)
        if self.options.python:
            words = [os.fsencode(sys.executable)] + words
        variables = dict(os.environb)
        if self.coerced:
            del variables[b"LC_CTYPE"]
        variables.update(new)
        execute(words, variables)

    def members(self):
        need(TREES)
        return tree_of((), self.mark if self.level == "group" else None, self.sessions)

    def enter(self, phase, duration):
        self.phase, self.phase_end = phase, now_ms() + duration
        if phase >= self.TERM:
            need(TREES)
        if phase == self.TERM:
            signal_all(self.members, _signal.SIGTERM, 2)
            signal_all(self.members, _signal.SIGCONT, 2)
        elif phase == self.KILL:
            # Against a thousand processes that fork, an equal share of the processor is too little.
            try:
                os.setpriority(os.PRIO_PROCESS, 0, -20)
            except OSError:
                pass

    def ask_to_end(self, grace):
        """Unless that has been done already; a shorter grace counts."""
        if self.phase < self.TERM:
            self.enter(self.TERM, grace)
        elif self.phase == self.TERM:
            self.phase_end = min(self.phase_end, now_ms() + grace)

    def obey(self, line):
        word, _, rest = line.partition(b" ")
        if word == b"kill":
            self.ask_to_end(int(rest) if rest.isdigit() else self.options.numbers[b"--grace-ms"])
        elif word == b"signal" and self.main and rest.isdigit() and int(rest) > 0:
            signal_to(os.killpg, self.main, int(rest))

    def read_control(self):
        try:
            piece = os.read(self.control, 4096)
        except OSError:
            piece = b""
        self.pieces += piece
        lines = self.pieces.split(b"\n")
        self.pieces = lines.pop()
        for line in lines:
            self.obey(line)
        # A line that long is none of the engine's.
        if not piece or len(self.pieces) > 128:
            self.engine_gone = True
            self.ask_to_end(min(self.options.numbers[b"--grace-ms"], ORPHAN_GRACE_MS))

    def reap(self):
        """False when nothing of the tree is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL
                if pid == 0:
                    return True
                if pid == self.main:
                    self.main = 0
                    if os.WIFEXITED(status):
                        self.tell("exited", os.WEXITSTATUS(status))
                    else:
                        self.tell("signalled", os.WTERMSIG(status))
                    if self.phase == self.RUN:
                        self.enter(self.LINGER, self.options.numbers[b"--linger-ms"])
        except ChildProcessError:
            return self.level == "group" and bool(self.members())

    def wait_for_events(self):
        end = self.deadline if self.phase == self.RUN else self.phase_end
        timeout = None if end is None else min(max(0, end - now_ms()), 1000000)
        if self.phase == self.KILL:
            timeout = 5
        elif self.level == "group" and not self.main:
            timeout = 20  # nobody tells of the end of what is not our child
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if not self.engine_gone:
            poll.register(self.control, select.POLLIN)
        for fd, _ in poll.poll(timeout):
            if fd == self.control:
                self.read_control()
            elif any(number in CAUGHT for number in os.read(fd, 4096)):
                self.ask_to_end(self.options.numbers[b"--grace-ms"])

    def attend(self):
        """Until nothing is left; how many processes could not be killed."""
        while self.reap():
            now = now_ms()
            if self.phase == self.RUN and self.deadline is not None and now >= self.deadline:
                self.tell("deadline")
                self.enter(self.TERM, self.options.numbers[b"--grace-ms"])
            elif self.phase in (self.LINGER, self.TERM) and now >= self.phase_end:
                self.enter(self.KILL, GIVE_UP_MS)
            if self.phase == self.KILL:
                kill_all(self.members)
                if now >= self.phase_end:
                    return max(1, len(self.members()))
            self.wait_for_events()
        return 0


class Control(Stream):
    """The control socket of a keeper, until that has ended."""

    def __init__(self, runner, number, pid, mark, streams):
        Stream.__init__(self, runner, number)
        self.pid, self.mark, self.streams = pid, mark, streams
        runner.keepers[pid] = self

    def widen(self):
        """Not for lines."""

    def send(self, piece):
        if not self.closed:
            Stream.send(self, piece)

    def broken(self):
        self.source_ended()

    def released(self):
        # The engine has given it up: the keeper hears that, and is waited for.
        self.pending_size = 0
        self.inbox.clear()
        self.sink_ended()

    def source_ended(self):
        status = os.waitpid(self.pid, 0)[1]
        del self.runner.keepers[self.pid]
        if status != 0:
            need(TREES)
            kill_orphans(self.runner, self.mark)
            self.send(b"gone\n")
        Stream.source_ended(self)
        self.sink_ended()
        for stream in self.streams:
            stream.outlive()


def allow_descriptors():
    """Raises the limit of descriptors; what it was, for programs."""
    import resource
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY or before[1] > before[0] != resource.RLIM_INFINITY:
        most = MAX_DESCRIPTORS if before[1] == resource.RLIM_INFINITY else before[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_DESCRIPTORS), before[1]))
    return before


def start(runner, number, *words):
    """Makes the keeper of an exec."""
    def refuse(stage, code):
        channel = Channel(runner, number)
        channel.answer("exec-failed {} {}\ngone".format(stage, code))
        if stage != "pipes":
            for stream in streams:
                stream.join(None, None)
                stream.finish()
        return channel

    streams = [runner.channels.get(int(word) if word.isdigit() else 0) for word in words[:2]]
    if len(set(streams)) != 2 or any(
            type(stream) is not Stream or stream.joined for stream in streams):
        return refuse("pipes", errno.EINVAL)
    try:
        options = Options(words[2:])
    except ValueError:
        return refuse("options", errno.EINVAL)
    mark, ends = os.urandom(16).hex().encode(), []
    try:
        for _ in range(3):
            ends += os.pipe()
        ends += [end.detach() for end in _socket.socketpair()]
        # What asks the keeper to end is not to be taken for what asks the runner.
        _signal.pthread_sigmask(_signal.SIG_SETMASK, MASK)
        pid = os.fork()
    except OSError as error:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        close(*ends)
        return refuse("fork", error.errno)
    stdin, ours_in, ours_out, stdout, ours_err, stderr, ours, control = ends
    if pid == 0:
        keeper = Keeper(control, options, mark)
        keeper.coerced = runner.coerced
        be_keeper(runner, (stdin, stdout, stderr), keeper)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    close(stdin, stdout, stderr, control)
    for fd in (ours_in, ours_out, ours_err, ours):
        os.set_blocking(fd, False)
    channel = Control(runner, number, pid, mark, streams)
    runner.channels[number] = channel
    channel.join(ours, ours)
    streams[0].join(ours_out, ours_in)
    streams[1].join(ours_err, None)
    return channel


def be_keeper(runner, streams, keeper):
    status = 1
    try:
        os.setsid()
        for fd, end in enumerate(streams):
            os.dup2(end, fd)
        close_others(0, 1, 2, keeper.control)
        if runner.descriptors:
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, runner.descriptors)
        try:
            os.chdir(runner.cwd)
        except OSError:
            pass  # it is not there any more
        keeper.run()
        status = 0
    except Become:
        status = None
        raise
    finally:
        if status is not None:
            os._exit(status)



def peer_of(fd):
    cred = on_socket(fd, "getsockopt", _socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return [int.from_bytes(cred[at:at + 4], sys.byteorder) for at in (0, 4)]


def new_socket(kind):
    return _socket.socket(_socket.AF_UNIX, kind).detach()


def bind(path, kind):
    fd = new_socket(kind)
    before = os.umask(0o177)
    try:
        on_socket(fd, "bind", path)
        on_socket(fd, "listen", 128)
        os.set_blocking(fd, False)
        return fd
    except OSError:
        close(fd)
        raise
    finally:
        os.umask(before)


class Listener(Channel):
    """Each connection becomes a channel of ours."""

    def __init__(self, runner, number, path):
        Channel.__init__(self, runner, number)
        self.path, self.connections = path, 0
        self.fd = bind(path, _socket.SOCK_STREAM)
        self.send(b"ok\n")
        self.watch()

    def watch(self):
        if not self.closed:
            room = self.connections < MAX_CONNECTIONS
            self.runner.watch(self.fd, select.POLLIN if room else 0, self.accept)

    def accept(self, *_):
        try:
            fd = on_socket(self.fd, "_accept")[0]
        except OSError as error:
            if self.connections and error.errno in (errno.EMFILE, errno.ENFILE):
                self.runner.watch(self.fd, 0)  # until one of them has ended
            return
        pid, uid = peer_of(fd)
        if uid not in (0, os.geteuid()):
            return close(fd)
        os.set_blocking(fd, False)
        self.runner.make_room()
        request = "accepted\0{}\0{}\0{}\0".format(self.number, pid, uid)
        Connection(self.runner, self.runner.open(request.encode()), self).join(fd, fd)
        self.connections += 1
        self.watch()

    def arrived(self):
        Channel.arrived(self)
        if self.peer_ended:
            self.close()

    def released(self):
        self.runner.watch(self.fd, 0)
        close(self.fd)
        try:
            os.unlink(self.path)
        except OSError:
            pass


class Connection(Stream):
    def __init__(self, runner, number, listener):
        Stream.__init__(self, runner, number)
        self.listener = listener
        runner.channels[number] = self

    def released(self):
        Stream.released(self)
        self.listener.connections -= 1
        self.listener.watch()


class Directory(Channel):
    """A private directory, until the channel is closed."""

    stays = True

    def __init__(self, runner, number, *bases):
        Channel.__init__(self, runner, number)
        failure = OSError(errno.EINVAL, "")
        for base in bases:
            self.path = base + b"/farcall-run-" + os.urandom(8).hex().encode()
            try:
                if not base.startswith(b"/"):
                    raise OSError(errno.EINVAL, "")
                os.mkdir(self.path, 0o700)
                break
            except OSError as error:
                failure = error
        else:
            raise failure
        self.claim = take_claim(self.path)
        self.send(b"ok " + self.path + b"\n")
        self.finish()

    def settle(self):
        if self.peer_ended:
            self.close()

    def touch(self):
        try:
            os.utime(self.path)
        except OSError:
            pass

    def released(self):
        remove(self.path)
        if self.claim is not None:
            close(self.claim)
        if not self.runner.has_swept:
            self.runner.has_swept = True
            sweep(self.path)


# Whose a directory is: claim.h says it.

def boot():
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(36)


def lock(fd):
    import fcntl
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def take_claim(directory):
    """A descriptor, or None where there are no locks or no room."""
    path = directory + b"/claim"
    fd = None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock(fd)
        os.write(fd, boot())
        return fd
    except (OSError, ImportError):
        if fd is not None:
            os.unlink(path)
            os.close(fd)


def sweep(directory):
    """Removes what runners of this user have left beside it that are dead."""
    base = os.path.dirname(directory)
    try:
        names, own = os.listdir(base), boot()
    except OSError:
        return
    for name in names:
        if name.startswith((b"farcall-run-", b"farcall-link-")):
            path, fds = base + b"/" + name, []
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                fds.append(os.open(path, flags))
                if os.fstat(fds[0]).st_uid != os.geteuid():
                    raise OSError(errno.EPERM, "")
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
                fds.append(os.open("claim", flags, dir_fd=fds[0]))
                lock(fds[1])
                if os.read(fds[1], 36) == own:
                    remove(path)
            except (OSError, ImportError):
                pass
            close(*fds)


def remove(path):
    """Removes a directory with all in it. What is deep is brought up first, and nothing is followed."""
    def empty(fd, depth):
        for name in os.listdir(fd):
            try:
                os.unlink(name, dir_fd=fd)
            except OSError:
                if depth > 20:
                    os.rename(name, os.urandom(8).hex(), src_dir_fd=fd, dst_dir_fd=top)
                else:
                    visit(name, fd, depth)
                    os.rmdir(name, dir_fd=fd)

    def visit(name, parent, depth):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            fd = os.open(name, flags, dir_fd=parent)
        except PermissionError:
            os.chmod(name, 0o700, dir_fd=parent)
            fd = os.open(name, flags, dir_fd=parent)
        try:
            os.fchmod(fd, 0o700)
            empty(fd, depth + 1)
        finally:
            os.close(fd)

    for _ in range(3):
        try:
            top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                while os.listdir(top):
                    empty(top, 0)
            finally:
                os.close(top)
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            continue


class Put(Channel):
    """Takes a file, which appears whole or not at all."""

    def __init__(self, runner, number, path, mode, size):
        Channel.__init__(self, runner, number)
        if not path.startswith(b"/"):
            raise ValueError
        self.path, self.size, self.mode = path, number_of(size), number_of(mode, 8)
        if self.mode > 0o7777:
            raise ValueError
        self.beside = path + b"." + os.urandom(8).hex().encode()
        self.fd = os.open(self.beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.widen()

    def arrived(self):
        while self.inbox:
            piece = self.inbox.popleft()
            self.took(len(piece))
            self.size -= len(piece)
            self.attempt("write", self.store, piece)
        if self.peer_ended and self.fd is not None:
            self.attempt("mode", os.fchmod, self.fd, self.mode)
            self.attempt("rename", self.publish)

    def store(self, piece):
        while piece and self.size >= 0:
            piece = piece[os.write(self.fd, piece):]

    def publish(self):
        os.rename(self.beside, self.path)
        os.close(self.fd)
        self.fd = None
        self.answer("ok")

    def attempt(self, stage, step, *arguments):
        if self.fd is None:
            return
        try:
            if self.size < 0 or self.peer_ended and self.size > 0:
                stage = "size"
                raise OSError(errno.EINVAL, "")
            step(*arguments)
        except OSError as error:
            self.released()
            self.fail(stage, error)

    def released(self):
        if self.fd is not None:
            close(self.fd)
            self.fd = None
            try:
                os.unlink(self.beside)
            except OSError:
                pass


class Get(Channel):
    """Gives a part of a regular file."""

    def __init__(self, runner, number, path, offset, most):
        Channel.__init__(self, runner, number)
        offset, self.left = number_of(offset), number_of(most)
        if not path.startswith(b"/"):
            raise ValueError
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(self.fd)
            kind = status.st_mode & 0o170000
            if kind != 0o100000:
                raise OSError(errno.EISDIR if kind == 0o040000 else errno.EINVAL, "")
            os.lseek(self.fd, offset, os.SEEK_SET)
        except (OSError, OverflowError):
            close(self.fd)
            raise
        self.send("ok {}\n".format(status.st_size).encode())
        self.drained()

    def drained(self):
        while self.pending_size < MAX_PENDING and not self.finished:
            try:
                piece = os.read(self.fd, min(PIECE, self.left))
            except OSError:
                # Half of it has been sent as good: only an abort tells.
                return self.runner.reset(self)
            if not piece:
                return self.finish()
            self.left -= len(piece)
            self.send(piece)

    def released(self):
        close(self.fd)


# A script in this interpreter.

# Variables that are read when an interpreter starts, or by the libraries in it: where an exec sets
# one of them to something else than it was, a new interpreter must be started after all. Those
# that modules and scripts of farcall are found by can be obeyed late.
EARLY = (b"PYTHON", b"LC_", b"LANG", b"LD_", b"MALLOC_", b"GLIBC_", b"TZ", b"HOME")
LATE = (b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"PYTHONUNBUFFERED")


def can_become(path, variables):
    """Whether a script can run in this interpreter just as in a new one."""
    for name, value in variables.items():
        if name.startswith(EARLY) and value != os.environb.get(name):
            if name not in LATE or name in os.environb or sys.flags.ignore_environment:
                return False
    for place in variables.get(b"PYTHONPATH", b"").split(b":"):
        if os.path.exists(place + b"/sitecustomize.py") or os.path.exists(
                place + b"/usercustomize.py"):
            return False
    try:
        # Not a directory, a package or compiled code, which start in other ways.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return not path.startswith(b"-") and not path.endswith(b".pyc") \
                and os.fstat(fd).st_mode & 0o170000 == 0o100000 and os.read(fd, 2) != b"PK"
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return False


def new_streams(unbuffered):
    """sys.stdin, stdout and stderr as an interpreter makes them for the descriptors 0, 1 and 2."""
    import io
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, "__" + name + "__")
        mode = "w" if fd else "r"
        raw = bool(fd and (unbuffered or old and not hasattr(old.buffer, "raw")))
        file = io.open(fd, mode + "b", 0 if raw else -1, closefd=False)
        (file if raw else file.raw).name = "<" + name + ">"
        stream = io.TextIOWrapper(
            file, old.encoding if old else None, old.errors if old else None, "\n",
            not raw and (file.isatty() or fd == 2 and sys.version_info >= (3, 9)), raw)
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


def become(words, variables):
    """Runs a script in this interpreter as `python3 WORDS` would. Returns when the script has ended
    and the interpreter is to end as after any script: with its threads and what atexit has.

    A script can still tell by looking for it: at the command line in /proc, at the frames below its
    own, at modules such as select being loaded.
    """
    os.environb.update(variables)
    new_streams(variables.get(b"PYTHONUNBUFFERED"))
    # As an interpreter sets them when it starts.
    for name, action in (("SIGPIPE", _signal.SIG_IGN), ("SIGXFSZ", _signal.SIG_IGN),
                         ("SIGINT", _signal.default_int_handler)):
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), action)
    sys.argv = [os.fsdecode(word) for word in words]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable] + sys.argv
    path = sys.argv[0]
    late = []
    if variables.get(b"PYTHONPATH"):
        for place in map(os.path.abspath, os.fsdecode(variables[b"PYTHONPATH"]).split(":")):
            if place not in sys.path and place not in late:
                late.append(place)
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        late.insert(0, os.path.dirname(os.path.realpath(path)))
    sys.path[:0] = late
    if variables.get(b"PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True
    if sys.version_info >= (3, 9):
        path = os.path.abspath(path)
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not (name.startswith("__") and name.endswith("__"))]:
        del main[name]
    if "__annotations__" in main:
        main["__annotations__"] = {}
    main.update(__name__="__main__", __doc__=None, __package__=None, __spec__=None,
                __loader__=loader, __file__=path, __cached__=None)
    code = failure = None
    try:
        with open(path, "rb") as file:
            code = file.read()
        code = compile(code, path, "exec", 0, True)
        exec(code, main)
    except SystemExit:
        raise
    except BaseException as error:
        failure = error
    if failure:
        # Without the frames of the runner. What could not be compiled has none of its own.
        report(failure.with_traceback(
            None if type(code) is bytes else failure.__traceback__.tb_next))


def report(error):
    """Shows an exception as an interpreter does that ends by it, and ends by it."""
    kind, trace = type(error), error.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        sys.excepthook(kind, error, trace)
    except SystemExit:
        raise
    except BaseException as second:
        second.with_traceback(second.__traceback__.tb_next)
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)
    if isinstance(error, KeyboardInterrupt):
        # Only by leaving with it does the interpreter end by SIGINT.
        sys.excepthook = lambda *_: None
        raise error
    raise SystemExit(1) from None


def processes(ended=False):
    """pid -> parent, group and session of every process; also of those that wait to be reaped."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fd = os.open("/proc/" + name + "/stat", os.O_RDONLY)
                text = os.read(fd, 512)
                os.close(fd)
            except OSError:
                continue
            # The name of the program, in parentheses, may hold anything.
            state, parent, group, session = text[text.rindex(b")") + 2:].split(None, 4)[:4]
            if ended or state not in b"ZX":
                table[int(name)] = int(parent), int(group), int(session)
    return table


def is_marked(pid, mark):
    try:
        fd = os.open("/proc/{}/environ".format(pid), os.O_RDONLY)
    except OSError:
        return False
    try:
        text, piece = b"", b"="
        while piece:
            piece = os.read(fd, 65536)
            text += piece
        return mark in text
    except OSError:
        return False
    finally:
        os.close(fd)


def tree_of(spared, mark=None, sessions=None):
    """What of the table descends from this process, but not through those that are spared. With a
    mark, also what bears it or is in one of the sessions, which grow by those that are met.
    """
    table, found, me = processes(), {}, os.getpid()
    if mark:
        found = {pid: row for pid, row in table.items() if pid != me and pid not in spared
                 and (row[2] in sessions or is_marked(pid, mark))}
    more = True
    while more:
        new = {pid: row for pid, row in table.items() if pid not in found and pid not in spared
               and (row[0] == me or row[0] in found)}
        found.update(new)
        more = bool(new)
    if mark:
        sessions.update(row[2] for row in found.values())
    return found


def signal_all(find, number, rounds):
    """Signals each process that find() meets, once; more rounds for those who are born meanwhile.

    Pids go round in a cycle, so one that has just been read is not another process' yet.
    """
    seen = {}
    for _ in range(rounds):
        new = {pid: row for pid, row in find().items() if pid not in seen}
        if not new:
            break
        if number == _signal.SIGSTOP:
            # A group is signalled in one step: nobody in it can fork past that.
            for group in {row[1] for row in new.values()}:
                signal_to(os.killpg, group, number)
        for pid in new:
            signal_to(os.kill, pid, number)
        seen.update(new)
    return len(seen)


def kill_all(find):
    signal_all(find, _signal.SIGSTOP, 100)
    signal_all(find, _signal.SIGKILL, 2)


def kill_orphans(runner, mark=None):
    """Kills what has come to us from a keeper that was killed."""
    sessions, last = set(), now_ms() + GIVE_UP_MS
    while now_ms() < last:
        kill_all(lambda: tree_of(runner.keepers, mark, sessions))
        left = tree_of(runner.keepers, mark, sessions)
        for pid, row in processes(True).items():
            if row[0] == os.getpid() and pid not in runner.keepers:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass
        if not left:
            break
        select.poll().poll(5)


def end(runner):
    """Ends all trees, then what was to be there only as long as the runner."""
    channels = list(runner.channels.values())
    for channel in channels:
        if not channel.stays:
            channel.close()
    last = now_ms() + ORPHAN_GRACE_MS + GIVE_UP_MS
    while runner.keepers and now_ms() < last:
        poll = select.poll()
        for control in runner.keepers.values():
            poll.register(control.source, select.POLLIN)
        for fd, events in poll.poll(1000):
            runner.handlers[fd](fd, events)
    for pid in runner.keepers:
        signal_to(os.kill, pid, _signal.SIGKILL)
    runner.keepers.clear()
    kill_orphans(runner)
    for channel in channels:
        channel.close()
    if runner.grace:
        remove(runner.directory)
        sweep(runner.directory)



# A link is offered by one message: the descriptors, and MARK TOKEN BYTES-RECEIVED IS-A-TURN FROM SIZE
# HOLD-MS, numbers as u64 of the machine's own order. The answer is "ok" or "error STAGE ERRNO WORDS".
# The socket is closed when the link is not needed any more.
NUMBERS_SIZE = 5 * 8
KNOCK_SIZE = MARK_SIZE + Token.SIZE + NUMBERS_SIZE
MAX_KNOCKERS = 8  # who comes and says nothing has to leave when others come


def open_door(runner):
    try:
        os.setsid()  # whoever ends the exec in which we started must not end us
    except OSError:
        pass
    os.mkdir(runner.directory, 0o700)
    runner.claim = take_claim(runner.directory)
    door = bind(runner.directory + b"/link", _socket.SOCK_SEQPACKET)
    knockers = deque()

    def knocked(*_):
        try:
            fd = on_socket(door, "_accept")[0]
        except OSError:
            return
        if peer_of(fd)[1] not in (0, os.geteuid()):
            return close(fd)
        os.set_blocking(fd, False)
        knockers.append(fd)
        if len(knockers) > MAX_KNOCKERS:
            away = knockers.popleft()
            runner.watch(away, 0)
            close(away)
        runner.watch(fd, select.POLLIN, hear)

    def hear(fd, _):
        knockers.remove(fd)
        greet(runner, fd)

    runner.watch(door, select.POLLIN, knocked)


class Turn:
    """What a link is that brings so many bytes, waits for an answer, and ends (see door.h)."""

    def __init__(self, size, hold, ignored):
        self.left, self.until, self.ignored, self.said = size, now_ms() + hold, ignored, False

    def over(self, flushed):
        return not self.left and flushed and (
            self.said or self.ignored or now_ms() >= self.until)


def greet(runner, fd):
    """Takes the link that is offered, if it comes with the token."""
    runner.watch(fd, 0)
    knock, fds = bytearray(KNOCK_SIZE), []
    try:
        size, passed, _, _ = on_socket(
            fd, "recvmsg_into", [knock], _socket.CMSG_SPACE(8), _socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in passed:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds += [int.from_bytes(data[at:at + 4], sys.byteorder)
                        for at in range(0, len(data) - 3, 4)]
        good = size == KNOCK_SIZE and len(fds) == 2 and runner.token.matches(
            memoryview(knock)[MARK_SIZE:-NUMBERS_SIZE])
        count, is_turn, start, size, hold = (
            int.from_bytes(knock[at:at + 8], sys.byteorder)
            for at in range(MARK_SIZE + Token.SIZE, KNOCK_SIZE, 8))
        if good and runner.confirmed <= count <= runner.sent:
            on_socket(fd, "send", b"ok")
            link, fds = Link(*fds), []
            link.guard = fd
            if is_turn:
                link.turn = Turn(size, hold, start != runner.received)
            try:
                link.say("\n{} resumed {}\n".format(knock[:MARK_SIZE].decode(), runner.received))
            except OSError:
                return link.close()
            runner.resume(link, count)
            return runner.watch(fd, select.POLLIN, lambda *_: runner.drop_link())
        on_socket(fd, "send", b"error resume 22 that was never sent" if good
                  else b"error token 13 that is another one")
    except (OSError, ValueError):
        pass
    close(fd, *fds)


def attach(mark, directory):
    """Offers our standard input and output to the runner of a directory, and waits."""
    stage, line = "token", b""
    try:
        while not line.endswith(b"\n") and len(line) < 160:
            byte = os.read(0, 1)
            if not byte:
                break
            line += byte
        token, *numbers = line.split()
        if len(token) != Token.SIZE or len(numbers) not in (1, 4) or not all(
                number.isdigit() and len(number) < 19 for number in numbers):
            raise OSError(errno.EINVAL, "")
        count, *turn = [int(number) for number in numbers]
        stage = "connect"
        status = os.lstat(directory)
        if status.st_mode & 0o170077 != 0o040000 or status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "")  # another user would get to know the token
        fd = new_socket(_socket.SOCK_SEQPACKET)
        on_socket(fd, "connect", directory + "/link")
        fds = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1))
        knock = mark.encode() + token + b"".join(
            number.to_bytes(8, sys.byteorder)
            for number in (count, 1 if turn else 0, *(turn or (0, 0, 0))))
        on_socket(fd, "sendmsg", [knock], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        answer = os.read(fd, 100)
        if not answer:
            raise OSError(errno.ECONNRESET, "")
    except OSError as error:
        fail(mark, stage, error)
    if answer != b"ok":
        os.write(1, b"\n" + mark.encode() + b" " + answer + b"\n")
        os._exit(1)
    os.read(fd, 1)


def connect(path):
    """Joins standard input and output with a socket, until that has ended."""
    fd = new_socket(_socket.SOCK_STREAM)
    try:
        on_socket(fd, "connect", path)
    except OSError as error:
        sys.stderr.write("farcall-runner: {}: {}\n".format(path, error.strerror or error))
        os._exit(1)
    poll, pending = select.poll(), b""
    poll.register(fd, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for ready, what in poll.poll():
            if ready == 0:
                poll.unregister(0)
                pending = os.read(0, PIECE)
                if not pending:
                    half_close(fd)
            elif what & ~select.POLLOUT:
                piece = os.read(fd, PIECE)
                if not piece:
                    return
                while piece:
                    piece = piece[os.write(1, piece):]
        if pending:
            try:
                pending = pending[on_socket(fd, "send", pending, _socket.MSG_DONTWAIT):]
            except BlockingIOError:
                pass
            if not pending:
                poll.register(0, select.POLLIN)
            poll.register(fd, select.POLLIN | (select.POLLOUT if pending else 0))
