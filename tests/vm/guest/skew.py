#!/usr/bin/env python3
"""A server whose clock is wrong: relays SMB2 and has every NEGOTIATE response tell another time.

skew.py PORT SECONDS    listens on PORT, speaks to 127.0.0.1:445; SECONDS are added

Whoever logs in with SMB 3.1.1 notices, because that response is part of what is signed: only greetings work.
"""

import struct
import sys

import relay

COMMAND = 12  # in the header, two bytes; 0 is NEGOTIATE (MS-SMB2 2.2.1)
SYSTEM_TIME = 64 + 40  # in the response, eight bytes: units of 100 ns since 1601 (2.2.4)


def at_another_time(frame, seconds):
    if frame[:4] == b"\xfeSMB" and frame[COMMAND:COMMAND + 2] == b"\0\0" and len(frame) >= SYSTEM_TIME + 8:
        (time,) = struct.unpack_from("<Q", frame, SYSTEM_TIME)
        struct.pack_into("<Q", frame, SYSTEM_TIME, time + seconds * 10_000_000)
    return frame


port, seconds = int(sys.argv[1]), int(sys.argv[2])
relay.run(port, lambda frame: at_another_time(frame, seconds))
