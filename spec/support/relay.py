# SPDX-License-Identifier: MIT
"""relay.py TARGET_PORT DIR EVERY DELAY: passes bytes between TCP connections to a port of its own
and TARGET_PORT, on loopback. DIR/port says which port that is, DIR/pid the process.

While the file DIR/stall is there nothing moves; while DIR/cut is there every connection is reset,
also a new one. With EVERY > 0 all of it pauses for 50 ms after so many bytes. Whatever comes goes on
DELAY seconds later, each way. Small buffers, so that a stall is felt at once."""

import asyncio
import os
import socket
import sys

target, directory, every, delay = sys.argv[1:]
every, delay = int(every), float(delay)
PIECE = 16384
# What is under way on a slow link: pieces.
UNDER_WAY = 256 if delay else 1
stall, cut = directory + "/stall", directory + "/cut"
transports, moved, pause_until = set(), 0, 0


async def let_through():
    while os.path.exists(stall):
        await asyncio.sleep(0.01)
    await asyncio.sleep(max(0, pause_until - asyncio.get_running_loop().time()))


async def receive(reader, queue):
    loop = asyncio.get_running_loop()
    data = b"-"
    while data:
        await let_through()
        try:
            data = await reader.read(PIECE)
        except OSError:
            data = b""
        await queue.put((loop.time() + delay, data))


async def send(queue, writer):
    global moved, pause_until
    loop = asyncio.get_running_loop()
    while True:
        due, data = await queue.get()
        await asyncio.sleep(max(0, due - loop.time()))
        await let_through()
        if not data:
            return
        writer.write(data)
        await writer.drain()
        moved += len(data)
        if every and moved >= every:
            moved, pause_until = 0, loop.time() + 0.05 * (moved // every)


async def serve(near_reader, near):
    transports.add(near.transport)
    try:
        await let_through()
        far_reader, far = await asyncio.open_connection("127.0.0.1", int(target), limit=PIECE)
    except OSError:
        near.transport.abort()
        return
    transports.add(far.transport)
    tasks = []
    for reader, writer in ((near_reader, far), (far_reader, near)):
        writer.transport.set_write_buffer_limits(high=PIECE)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        queue = asyncio.Queue(UNDER_WAY)
        tasks += [asyncio.create_task(receive(reader, queue)),
                  asyncio.create_task(send(queue, writer))]
    # The end of one direction is the end of both.
    await asyncio.wait((tasks[1], tasks[3]), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        # Seen: a connection that is reset is no news here.
        if not task.cancelled():
            task.exception()
    for writer in (near, far):
        transports.discard(writer.transport)
        writer.close()


async def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listener, limit=PIECE, backlog=16)
    for name, value in ("port", listener.getsockname()[1]), ("pid", os.getpid()):
        with open(f"{directory}/{name}", "w", encoding="ascii") as file:
            file.write("%d\n" % value)
    async with server:
        while True:
            if os.path.exists(cut):
                for transport in transports:
                    transport.abort()
            await asyncio.sleep(0.01)


asyncio.run(main())
