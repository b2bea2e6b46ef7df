"""Between clients and the Samba of this host: what goes by can be changed."""

import asyncio


async def _pass_on(reader, writer, change):
    try:
        while True:
            header = await reader.readexactly(4)
            frame = bytearray(await reader.readexactly(int.from_bytes(header[1:], "big")))
            writer.write(header + change(frame))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve(port, change):
    async def serve(client_reader, client_writer):
        reader, writer = await asyncio.open_connection("127.0.0.1", 445)
        await asyncio.gather(
            _pass_on(client_reader, writer, lambda frame: frame),
            _pass_on(reader, client_writer, change),
        )

    server = await asyncio.start_server(serve, port=port)
    async with server:
        await server.serve_forever()


def run(port, change):
    """Listens on the port and speaks to 127.0.0.1:445; change(frame) returns what a client gets of each answer."""
    asyncio.run(_serve(port, change))
