"""A server on Python's `websockets`: see README.md.

Compresses if the client offers it. Prints on SIGTERM the frames it sent, by opcode, as one JSON
object. The text "close me" is answered with a close frame of code 4002.
"""

import asyncio
import signal
import ssl
import sys

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

from websockets_frames import SentFrames

room = set()


async def tick(connection, milliseconds):
    try:
        while True:
            await asyncio.sleep(milliseconds / 1000)
            await connection.send("tick")
    except ConnectionClosed:
        pass


async def answer(connection):
    ticking = None
    try:
        async for message in connection:
            kind, *rest = message.split(" ", 2) if isinstance(message, str) else ("",)
            if message == "close me":
                await connection.close(4002, "as you wish")
            elif kind == "burst":
                for _ in range(int(rest[0])):
                    await connection.send(message)
            elif kind == "all":
                room.add(connection)
                broadcast(room, message)
            elif kind == "tick":
                ticking = asyncio.create_task(tick(connection, int(rest[0])))
            else:
                await connection.send(message)
    except ConnectionClosed:
        pass  # a killed client must not end the server
    finally:
        room.discard(connection)
        if ticking:
            ticking.cancel()


async def main(host, port, ping_milliseconds, *certificate):
    sent = SentFrames()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    interval = int(ping_milliseconds) / 1000 or None
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    async with serve(
        answer,
        host,
        int(port),
        ssl=tls,
        ping_interval=interval,
        ping_timeout=None,
        logger=sent.logger,
    ):
        print("ready", flush=True)
        await stop.wait()
    sent.print()


asyncio.run(main(*sys.argv[1:]))
