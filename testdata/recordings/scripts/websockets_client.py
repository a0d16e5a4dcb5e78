"""A client on Python's `websockets`: websockets_client.py URL messages|deflate|listen|asked-close|abort
"""

import asyncio
import sys

from websockets.asyncio.client import connect

# Empty, both short ways to write a length, and a message in fragments.
MESSAGES = ["", "hello", b"\x77" * 200, "x" * 126, ["one ", "message ", "in parts"]]


async def main(url, scenario):
    compression = "deflate" if scenario == "deflate" else None
    async with connect(url, ping_interval=None, compression=compression) as connection:
        if scenario == "listen":
            await asyncio.sleep(0.25)
            await connection.close()
            return
        for message in MESSAGES:
            await connection.send(message)
            await connection.recv()
        await (await connection.ping())
        await (await connection.ping("are you there?"))
        if scenario == "asked-close":
            await connection.send("close")
            await connection.wait_closed()
        elif scenario == "abort":
            connection.transport.abort()
        else:
            await connection.close(4001, "done")


asyncio.run(main(*sys.argv[1:]))
