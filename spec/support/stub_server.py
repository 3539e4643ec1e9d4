"""Serves a stub's socket for the specs: stub_server.py DIRECTORY. Ends when its stdin does.

What it answers depends on the tool: see Peer.answer. It refuses connections over 8 as the engine
does, so that a stub that opens too many is found out.
"""
import json
import os
import socket
import sys
import threading
import time

MAX_CONNECTIONS = 24
directory = sys.argv[1]
lock = threading.Lock()
state = {"open": 0, "most": 0, "accepted": 0, "refused": 0, "calls": 0}


def count(name, by=1):
    with lock:
        state[name] += by
        state["most"] = max(state["most"], state["open"])
        return state[name]


class Peer:
    def __init__(self, sock):
        self.sock = sock

    def send(self, value):
        self.sock.sendall(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    def answer(self, request):
        number, tool, args = request["id"], request["tool"], request["args"]
        if tool == "echo":
            self.send({"id": number, "result": args})
        elif tool == "sleep":
            time.sleep(args["seconds"])
            self.send({"id": number, "result": args})
        elif tool == "big":
            self.send({"id": number, "result": "ä" * args["size"]})
        elif tool == "fail":
            self.send({"id": number, "error": {"kind": args["kind"], "message": args["message"]}})
        elif tool == "stats":
            with lock:
                self.send({"id": number, "result": dict(state)})
        elif tool == "farcall.remaining":
            self.send({"id": number, "result": {"calls": 7, "seconds": 1.5}})
        elif tool == "drop":
            return False
        elif tool == "half":
            self.sock.sendall(b'{"id":%d,"res' % number)
            return False
        elif tool == "garbage":
            self.sock.sendall(b"\xff\xfe nonsense\n")
        elif tool == "foreign":
            self.send({"id": number + 1000, "result": "another's"})
        elif tool == "refuse":
            self.send({"id": None, "error": {"kind": "protocol", "message": "not a request"}})
        elif tool == "dribble":
            for byte in json.dumps({"id": number, "result": "ok"}).encode() + b"\n":
                self.sock.sendall(bytes([byte]))
                time.sleep(0.001)
        elif tool == "hang_up_after":
            self.send({"id": number, "result": "bye"})
            return False
        elif tool == "raw":
            self.sock.sendall(b'{"id":%d,"result":%s}\n' % (number, args["text"].encode()))
        else:
            self.send({"id": number, "error": {"kind": "not_found", "message": "no such tool"}})
        return True

    def serve(self):
        try:
            if count("open") > MAX_CONNECTIONS:
                count("refused")
                self.send({"id": None, "error": {"kind": "limit", "message": "too many"}})
                return
            with self.sock.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    assert set(request) == {"id", "tool", "args", "token"}, request
                    assert request["token"] == "ab" * 32
                    count("calls")
                    if not self.answer(request):
                        return
        except OSError:
            pass
        finally:
            count("open", -1)
            self.sock.close()


with open(directory + "/token", "w") as file:
    file.write("ab" * 32)
listener = socket.socket(socket.AF_UNIX)
os.chdir(directory)
listener.bind("socket")
listener.listen(512)


def accept():
    while True:
        sock, _ = listener.accept()
        count("accepted")
        threading.Thread(target=Peer(sock).serve, daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
