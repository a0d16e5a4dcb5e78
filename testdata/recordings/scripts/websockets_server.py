"""An echo server on Python's `websockets`: websockets_server.py ADDRESS PORT

Sends a ping every 50 ms on the path /heartbeat; compresses if the client offers it. The text
"close" is answered with a close frame of code 1001. Prints "ready" on stdout.
"""

import asyncio
import contextlib
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def beat(connection):
    for number in range(1000):
        await connection.ping("" if number % 2 else f"beat {number}")
        await asyncio.sleep(0.05)


async def answer(connection):
    heartbeat = None
    if connection.request.path == "/heartbeat":
        heartbeat = asyncio.create_task(beat(connection))
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            if message == "close":
                await connection.close(1001, "as you wish")
            else:
                await connection.send(message)
    if heartbeat:
        heartbeat.cancel()


async def main(host, port):
    async with serve(answer, host, int(port), ping_interval=None):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
