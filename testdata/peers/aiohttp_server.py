"""A server on `aiohttp`: see README.md."""

import asyncio
import contextlib
import ssl
import sys

from aiohttp import WSMsgType, web

room = set()


async def tick(connection, milliseconds):
    with contextlib.suppress(ConnectionError):
        while not connection.closed:
            await asyncio.sleep(milliseconds / 1000)
            await connection.send_str("tick")


async def respond(connection, text):
    kind, *rest = text.split(" ", 2)
    if kind == "burst":
        for _ in range(int(rest[0])):
            await connection.send_str(text)
    elif kind == "all":
        room.add(connection)
        for member in list(room):
            with contextlib.suppress(ConnectionError):
                await member.send_str(text)
    else:
        await connection.send_str(text)


def answer(heartbeat):
    async def serve(request):
        connection = web.WebSocketResponse(heartbeat=heartbeat)
        await connection.prepare(request)
        ticking = None
        try:
            async for message in connection:
                if message.type is WSMsgType.BINARY:
                    await connection.send_bytes(message.data)
                elif message.type is WSMsgType.TEXT and message.data.startswith("tick "):
                    milliseconds = int(message.data.removeprefix("tick "))
                    ticking = asyncio.create_task(tick(connection, milliseconds))
                elif message.type is WSMsgType.TEXT:
                    await respond(connection, message.data)
        finally:
            room.discard(connection)
            if ticking:
                ticking.cancel()
        return connection

    return serve


async def main(host, port, ping_milliseconds, *certificate):
    application = web.Application()
    application.router.add_get("/", answer(int(ping_milliseconds) / 1000 or None))
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, host, int(port), ssl_context=tls).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
