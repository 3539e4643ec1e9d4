# SPDX-License-Identifier: MIT
"""libfarcall as a plugin: loaded at run time, its names and LuaJIT's seen by nobody else.
Usage: plugin.py LIBRARY CONFIG BACKEND COMMAND; prints the command's output."""
import ctypes
import os
import sys


class Options(ctypes.Structure):
    _fields_ = [("config", ctypes.c_char_p), ("rest", ctypes.c_void_p * 7)]


class Command(ctypes.Structure):
    _fields_ = [("backend", ctypes.c_char_p), ("options", ctypes.c_void_p),
                ("command", ctypes.c_char_p), ("rest", ctypes.c_void_p * 8)]


class Result(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint64), ("user", ctypes.c_void_p), ("exit_code", ctypes.c_int),
                ("signal", ctypes.c_int), ("signal_name", ctypes.c_char_p),
                ("out", ctypes.c_char_p)]


library = ctypes.CDLL(sys.argv[1], mode=os.RTLD_LOCAL)
config, backend, line = (word.encode() for word in sys.argv[2:])
handle, error, result = ctypes.c_void_p(), ctypes.create_string_buffer(512), ctypes.c_void_p()
options = Options(config=config)
if library.farcall_open(ctypes.byref(options), ctypes.byref(handle), error, 512) != 0:
    sys.exit(error.value.decode())
command = Command(backend=backend, command=line)
assert library.farcall_oneshot(handle, ctypes.byref(command), None) == 0
assert library.farcall_wait(handle, -1, ctypes.byref(result)) == 0
print(Result.from_address(result.value).out.decode(), end="")
library.farcall_result_free(result)
library.farcall_close(handle)
