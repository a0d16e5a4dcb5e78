"""An echo server on Python's `websockets`: websockets_server.py ADDRESS PORT PING_MILLISECONDS

Compresses if the client offers it. Prints "ready" on stdout, and on SIGTERM the frames it sent,
by opcode, as one JSON object. The text "close me" is answered with a close frame of code 4002.
"""

import asyncio
import signal
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from websockets_frames import SentFrames


async def echo(connection):
    try:
        async for message in connection:
            if message == "close me":
                await connection.close(4002, "as you wish")
            else:
                await connection.send(message)
    except ConnectionClosed:
        pass  # a killed client must not end the server


async def main(host, port, ping_milliseconds):
    sent = SentFrames()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    interval = int(ping_milliseconds) / 1000
    async with serve(echo, host, int(port), ping_interval=interval, logger=sent.logger):
        print("ready", flush=True)
        await stop.wait()
    sent.print()


asyncio.run(main(*sys.argv[1:]))
