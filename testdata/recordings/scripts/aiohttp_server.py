"""An echo server on `aiohttp`: aiohttp_server.py ADDRESS PORT

Answers plain requests with a page, sends a heartbeat every 50 ms on /heartbeat and compresses if
the client offers it. The text "close" is answered with a close frame of code 1001. Prints "ready" on
stdout.
"""

import asyncio
import sys

from aiohttp import WSMsgType, web


async def page(request):
    return web.Response(text=f"no upgrade: {request.path}\n")


async def echo(request):
    connection = web.WebSocketResponse(heartbeat=0.05 if request.path == "/heartbeat" else None)
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.BINARY:
            await connection.send_bytes(message.data)
        elif message.data == "close":
            await connection.close(code=1001, message=b"as you wish")
        else:
            await connection.send_str(message.data)
    return connection


async def main(host, port):
    application = web.Application()
    application.router.add_get("/echo", echo)
    application.router.add_get("/heartbeat", echo)
    application.router.add_get("/{page:.*}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, host, int(port)).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
