#!/usr/bin/env python3
"""A server whose clock is wrong: relays SMB2 and has every NEGOTIATE response tell another time.

skew.py PORT SECONDS    listens on PORT, speaks to 127.0.0.1:445; SECONDS are added

Whoever logs in with SMB 3.1.1 notices, because that response is part of what is signed: only greetings work.
"""

import asyncio
import struct
import sys

COMMAND = 12  # in the header, two bytes; 0 is NEGOTIATE (MS-SMB2 2.2.1)
SYSTEM_TIME = 64 + 40  # in the response, eight bytes: units of 100 ns since 1601 (2.2.4)


def at_another_time(frame, seconds):
    if frame[:4] == b"\xfeSMB" and frame[COMMAND:COMMAND + 2] == b"\0\0" and len(frame) >= SYSTEM_TIME + 8:
        (time,) = struct.unpack_from("<Q", frame, SYSTEM_TIME)
        struct.pack_into("<Q", frame, SYSTEM_TIME, time + seconds * 10_000_000)
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
    port, seconds = int(sys.argv[1]), int(sys.argv[2])

    async def serve(client_reader, client_writer):
        reader, writer = await asyncio.open_connection("127.0.0.1", 445)
        await asyncio.gather(
            relay(client_reader, writer, lambda frame: frame),
            relay(reader, client_writer, lambda frame: at_another_time(frame, seconds)),
        )

    server = await asyncio.start_server(serve, port=port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
