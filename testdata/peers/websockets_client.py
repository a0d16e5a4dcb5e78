"""A client on Python's `websockets`: websockets_client.py URL close|ask|stay

Offers compression, sends one message of every kind and waits for the echoes, a pong and two pings
of the server. Then it closes with code 4001, asks the server to close, or stays until it is killed.
At the end it prints the frames it sent, by opcode, as one JSON object.
"""

import asyncio
import sys

from websockets.asyncio.client import connect

from websockets_frames import SentFrames

# Each of the three ways to write a length (RFC 6455 §5.2), and a fragmented message.
MESSAGES = ["", "hello", b"\x77" * 200, b"\x77" * 70000, ["one ", "message"]]


async def main(url, ending):
    sent = SentFrames()
    async with connect(url, ping_interval=None, logger=sent.logger) as connection:
        for message in MESSAGES:
            await connection.send(message)
        await (await connection.ping())
        for _ in MESSAGES:
            await connection.recv()
        while sent.counts["pong"] < 2:
            await asyncio.sleep(0.01)
        if ending == "close":
            await connection.close(4001, "done")
        elif ending == "ask":
            await connection.send("close me")
        else:
            print("ready", flush=True)
        await connection.wait_closed()
    sent.print()


asyncio.run(main(*sys.argv[1:]))
