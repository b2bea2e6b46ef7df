#!/usr/bin/env python3
"""A server that gives no credits: relays SMB2 and has every answer grant none while a file is there.

miser.py PORT FILE      listens on PORT, speaks to 127.0.0.1:445

Guests' sessions are not signed, so that nobody notices (MS-SMB2 2.2.1: the header, 3.3.4.1: what grants credits).
"""

import os
import struct
import sys

import relay

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


port, starving = int(sys.argv[1]), sys.argv[2]
relay.run(port, lambda frame: without_credits(frame) if os.path.exists(starving) else frame)
