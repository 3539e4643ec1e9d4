-- SPDX-License-Identifier: MIT
-- The far side of a kernel (lua/kernel.lua): a Python program that stays, and runs one script after
-- the other in one namespace.
--
-- A run arrives on its standard input: a line with the sizes of all fields, then the fields, in
-- pairs of name and value. What comes while a script runs raises SIGINT: the kernel asks the system
-- for that, so that no thread has to look. A run's output is between two marks on each stream.

return [=[
"""Keeps one interpreter for the runs of a farcall session. Not for import."""
import _thread
import builtins
import fcntl
import linecache
import os
import select
import signal
import sys
import types

import _farcall

# Sources of so many runs are kept for tracebacks.
KEPT_SOURCES = 200


class State:
    run = None  # number of the run that is under way
    count = 0
    sources = []
    flags = 0  # of `from __future__`, for statements that are typed


def private(fd):
    """A copy of a descriptor that no script comes upon by accident, and no child inherits."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)


# -- Threads: each belongs to the run that started it, or whose thread started it. ---------------

belongs = _thread._local()


def tagged(start):
    def start_tagged(function, *args, **kwargs):
        run = getattr(belongs, "run", State.run)

        def body(*body_args, **body_kwargs):
            belongs.run = run
            return function(*body_args, **body_kwargs)
        return start(body, *args, **kwargs)
    return start_tagged


def tag_threads():
    threading = sys.modules.get("threading")
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        start = getattr(_thread, name, None)
        if start is not None:
            setattr(_thread, name, tagged(start))
            if threading is not None and hasattr(threading, "_" + name):
                setattr(threading, "_" + name, getattr(_thread, name))


def guard_calls():
    plain = _farcall._call

    def _call(tool, arguments):
        if State.run is None or getattr(belongs, "run", State.run) != State.run:
            return _farcall._answer({"error": {
                "kind": "refused",
                "message": "this thread is of an earlier run of the session, which has ended",
            }}, tool)
        return plain(tool, arguments)

    _farcall._call = _call
    try:
        _farcall._load()
    except _farcall.ToolError:
        pass  # said again when a script calls


# -- The link. -----------------------------------------------------------------------------------

class Link:
    def __init__(self):
        self.pid = os.getpid()
        self.control, self.out, self.err = private(0), private(1), private(2)
        self.buffer = b""
        try:
            fcntl.fcntl(self.control, fcntl.F_SETOWN, self.pid)
            if hasattr(fcntl, "F_SETSIG"):
                fcntl.fcntl(self.control, fcntl.F_SETSIG, signal.SIGINT)
            else:
                signal.signal(signal.SIGIO, lambda *_: signal.raise_signal(signal.SIGINT))
        except OSError:
            pass  # no interrupts here: a script that takes too long is killed

    def alarm(self, on):
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        flags = flags | os.O_ASYNC if on else flags & ~os.O_ASYNC
        try:
            fcntl.fcntl(self.control, fcntl.F_SETFL, flags)
        except OSError:
            pass

    def waiting(self):
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        return bool(self.buffer or poller.poll(0))

    def more(self):
        data = os.read(self.control, 1048576)
        if not data:
            raise EOFError
        self.buffer += data

    def take(self, size):
        parts, missing = [], size - len(self.buffer)
        parts.append(self.buffer[:size])
        self.buffer = self.buffer[size:]
        while missing > 0:
            data = os.read(self.control, min(missing, 1048576))
            if not data:
                raise EOFError
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def receive(self):
        """The next run's fields; empty lines are interrupts that came too late."""
        while True:
            while b"\n" not in self.buffer:
                self.more()
            line, self.buffer = self.buffer.split(b"\n", 1)
            if line:
                break
        values = [self.take(int(size)) for size in line.split()]
        return list(zip(values[::2], values[1::2]))

    def say(self, text):
        for fd in (self.out, self.err):
            data = text.encode()
            os.set_blocking(fd, True)  # whoever shares the stream may have thought otherwise
            while data:
                data = data[os.write(fd, data):]


# -- One run. ------------------------------------------------------------------------------------

class Run:
    def __init__(self, pairs):
        self.args, self.env, self.files, self.echo = [], [], [], False
        for name, value in pairs:
            if name == b"arg":
                self.args.append(os.fsdecode(value))
            elif name == b"env":
                self.env.append(value.split(b"=", 1))
            elif name.startswith(b"file:"):
                self.files.append((name[5:].decode(), value))
            else:
                setattr(self, name.decode(), value)
        self.nonce, self.token = self.nonce.decode(), self.token.decode()
        self.base = os.path.dirname(os.path.abspath(__file__))
        self.dir = f"{self.base}/r{State.count}"
        name = self.name.decode()
        self.path = f"<input {State.count}>" if self.echo else f"{self.dir}/{name}"

    def furnish(self):
        """A directory for what the run starts: its token is gone when the run is."""
        os.mkdir(self.dir, 0o700)
        os.symlink("../socket", self.dir + "/socket")
        write(self.dir + "/token", self.token.encode())
        if not self.echo:
            write(self.path, self.script)
        for name, text in self.files:
            write(f"{self.base}/{name}", text)
            module = sys.modules.get(name[:-3]) if name.endswith(".py") else None
            if module is not None:
                exec(compile(text, f"{self.base}/{name}", "exec"), module.__dict__)
        _farcall._token = self.token
        os.environ["FARCALL_RUN_DIR"] = self.dir
        self.before = []
        for name, value in self.env:
            self.before.append((name, os.environb.get(name), value))
            os.environb[name] = value
        sys.argv = [self.path, *self.args]
        main.__file__ = self.path
        if self.echo:
            del main.__file__  # there is none that a child of multiprocessing could read

    def clear(self):
        for name in ("token", "socket", os.path.basename(self.path)):
            try:
                os.unlink(f"{self.dir}/{name}")
            except OSError:
                pass
        try:
            os.rmdir(self.dir)
        except OSError:
            pass
        for name, old, value in getattr(self, "before", ()):
            if os.environb.get(name) == value:
                if old is None:
                    del os.environb[name]
                else:
                    os.environb[name] = old

    def compile(self):
        remember(self.path, self.script)
        if not self.echo:
            return compile(self.script, self.path, "exec", dont_inherit=True)
        import ast
        import __future__
        flags = State.flags | ast.PyCF_ONLY_AST
        tree = compile(self.script, self.path, "exec", flags, dont_inherit=True)
        code = compile(ast.Interactive(tree.body), self.path, "single", State.flags,
                       dont_inherit=True)
        for name in __future__.all_feature_names:
            State.flags |= code.co_flags & getattr(__future__, name).compiler_flag
        return code

    def perform(self):
        """Runs the script; returns its exit code."""
        try:
            code = self.compile()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if link.waiting():
                raise KeyboardInterrupt
            exec(code, main.__dict__)
            return 0
        except SystemExit as end:
            signal.signal(signal.SIGINT, ignore)
            return f"{exit_code(end.code)} exit"
        except BaseException as error:
            signal.signal(signal.SIGINT, ignore)
            report(error)
            return 130 if isinstance(error, KeyboardInterrupt) else 1


def write(path, data):
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)


def ignore(_signum, _frame):
    pass


def remember(path, script):
    try:
        text = script.decode()
    except UnicodeDecodeError:
        from importlib.util import decode_source
        try:
            text = decode_source(script)
        except (SyntaxError, UnicodeDecodeError):
            return
    linecache.cache[path] = (len(text), None, text.splitlines(True), path)
    State.sources.append(path)
    if len(State.sources) > KEPT_SOURCES:
        linecache.cache.pop(State.sources.pop(0), None)


def exit_code(value):
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    sys.stderr.write(f"{value}\n")
    return 1


def report(error):
    """The traceback, from the script's own first frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        if sys.excepthook is not sys.__excepthook__:
            return sys.excepthook(type(error), error, trace)
        import traceback
        traceback.print_exception(type(error), error, trace)
    except BaseException as problem:
        os.write(2, f"{type(error).__name__}, and its traceback cannot be shown: {problem!a}\n"
                 .encode())


def stream(fd, mode, name):
    """A standard stream as it was at first, whatever an earlier run has done to it."""
    made = originals.get(name)
    try:
        usable = made is not None and not made.closed
    except ValueError:
        usable = False  # its buffer was detached
    if not usable:
        made = open(fd, mode, encoding=styles[name][0], errors=styles[name][1], closefd=False)
        originals[name] = made
    setattr(sys, name, made)
    setattr(sys, f"__{name}__", made)
    return made


def reset_streams():
    os.dup2(null, 0)
    os.dup2(link.out, 1)
    os.dup2(link.err, 2)
    stream(0, "r", "stdin")
    stream(1, "w", "stdout").reconfigure(line_buffering=True)
    stream(2, "w", "stderr").reconfigure(line_buffering=True)


def flush():
    for name in ("stdout", "stderr"):
        for file in {id(f): f for f in (getattr(sys, name, None), originals[name])}.values():
            try:
                file.flush()
            except BaseException:
                pass


def serve(pairs):
    State.count += 1
    run = Run(pairs)
    code = 1
    try:
        try:
            reset_streams()
        finally:
            # Without this mark nobody hears why the run has failed, nor that it has ended.
            link.say(run.nonce + " begin\n")
        State.run = State.count
        try:
            run.furnish()
            link.alarm(True)
            code = run.perform()
        finally:
            signal.signal(signal.SIGINT, ignore)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        report(error)
    signal.signal(signal.SIGINT, ignore)
    if os.getpid() != link.pid:
        # A child that the script has forked came to the script's end.
        sys.exit(int(str(code).split()[0]))
    State.run = None
    link.alarm(False)
    flush()
    run.clear()
    link.say(f"{run.nonce} end {code}\n")


signal.signal(signal.SIGINT, ignore)
link = Link()
opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
null = private(opened)
os.close(opened)
styles = {name: (getattr(sys, name).encoding, getattr(sys, name).errors)
          for name in ("stdin", "stdout", "stderr")}
originals = {name: getattr(sys, name) for name in styles}
own = sys.modules["__main__"]  # must not be cleared away
main = types.ModuleType("__main__")
main.__builtins__ = builtins
sys.modules["__main__"] = main
tag_threads()
guard_calls()
while True:
    try:
        request = link.receive()
    except EOFError:
        break
    serve(request)
]=]
