#!/usr/bin/env python3
"""A server that gives no credits: relays SMB2 and has every answer grant none while a file is there.

miser.py PORT FILE      listens on PORT, speaks to 127.0.0.1:445

Guests' sessions are not signed, so that nobody notices (MS-SMB2 2.2.1: the header, 3.3.4.1: what grants credits).
"""

import asyncio
import os
import struct
import sys

CREDITS = 14  # CreditResponse in the header, two bytes
NEXT = 20  # NextCommand, four bytes: where the next message of the same frame begins


def without_credits(frame):
    message = 0
    while frame[message:message + 4] == b"\xfeSMB":
        struct.pack_into("<H", frame, message + CREDITS, 0)
        (following,) = struct.unpack_from("<I", frame, message + NEXT)
        if not following:
            break
        message += following
    return frame


async def relay(reader, writer, change):
    try:
        while True:
            header = await reader.readexactly(4)
            frame = bytearray(await reader.readexactly(int.from_bytes(header[1:], "big")))
            writer.write(header + change(frame))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    port, starving = int(sys.argv[1]), sys.argv[2]

    async def serve(client_reader, client_writer):
        reader, writer = await asyncio.open_connection("127.0.0.1", 445)
        await asyncio.gather(
            relay(client_reader, writer, lambda frame: frame),
            relay(reader, client_writer, lambda frame: without_credits(frame) if os.path.exists(starving) else frame),
        )

    server = await asyncio.start_server(serve, port=port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
