#!/usr/bin/python3
"""probe.py ADDRESS [--limit S] [--go FILE]: does this SMB server answer?

Connects to port 445, waits for FILE if there is one to wait for, and sends one SMB2 NEGOTIATE, from user space and without the kernel's CIFS client. Prints
{"result": "ok" | "no connection" | "no answer", "why": errno, "connect_ms", "answer_ms"}.
"""

import argparse
import errno
import json
import os
import socket
import struct
import time

SMB2_NEGOTIATE = struct.pack("<4sHHIHHIIQIIQ16s", b"\xfeSMB", 64, 0, 0, 0, 31, 0, 0, 0, 0, 0, 0, bytes(16))
DIALECTS = struct.pack("<HHHHI16sQHH", 36, 2, 1, 0, 0, os.urandom(16), 0, 0x0210, 0x0302)


def reason(e):
    return "timeout" if isinstance(e, TimeoutError) else errno.errorcode.get(e.errno, str(e))


def probe(address, limit, go):
    start = time.monotonic()
    try:
        connection = socket.create_connection((address, 445), limit)
    except OSError as e:
        return {"result": "no connection", "why": reason(e)}
    connected = time.monotonic()
    if go:
        open(go + ".ready", "w").close()
    while go and not os.path.exists(go):
        time.sleep(0.05)
    asked = time.monotonic()
    report = {"connect_ms": round((connected - start) * 1000, 1)}
    message = SMB2_NEGOTIATE + DIALECTS
    try:
        connection.sendall(struct.pack(">I", len(message)) + message)
        answer = connection.recv(4096)
    except OSError as e:
        return report | {"result": "no answer", "why": reason(e)}
    if answer[4:8] != b"\xfeSMB":
        return report | {"result": "no answer", "why": "closed" if not answer else "not SMB2"}
    return report | {"result": "ok", "answer_ms": round((time.monotonic() - asked) * 1000, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--limit", type=float, default=3)
    parser.add_argument("--go")
    args = parser.parse_args()
    print(json.dumps(probe(args.address, args.limit, args.go)))


main()
