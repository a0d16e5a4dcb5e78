"""A client on `aiohttp`: aiohttp_client.py URL messages|deflate|listen|browse|asked-close

`browse` fetches three pages first, on the same TCP connection.
"""

import asyncio
import sys
from urllib.parse import urljoin

import aiohttp


async def main(url, scenario):
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        if scenario == "browse":
            for path in ["/", "/style.css", "/script.js"]:
                page = urljoin(url.replace("ws://", "http://"), path)
                async with session.get(page) as response:
                    await response.read()
        compress = 15 if scenario == "deflate" else 0
        async with session.ws_connect(url, compress=compress) as connection:
            if scenario == "listen":
                # Reading answers pings.
                try:
                    await asyncio.wait_for(connection.receive(), 0.25)
                except asyncio.TimeoutError:
                    pass
                return
            for text in ["", "hello", "x" * 126]:
                await connection.send_str(text)
                await connection.receive_str()
            await connection.send_bytes(b"\x77" * 200)
            await connection.receive_bytes()
            await connection.ping()
            await connection.ping(b"are you there?")
            if scenario == "asked-close":
                await connection.send_str("close")
                await connection.receive()
            else:
                await connection.close(code=4001, message=b"done")


asyncio.run(main(*sys.argv[1:]))
