#!/usr/bin/python3
"""Anybody on the host who touches a path, with a limit on how long we watch.

stranger.py PATH KIND[,KIND...] [--limit S] [--go FILE]
    One call of each kind, each in a child of its own, all at the same time. Prints a JSON line per kind:
    {"kind", "result": "ok" | errno | "blocked", "ms", "entries" of ls, "state" where it was blocked}.
    A blocked child is killed and left behind, for it may be unkillable.
      ls     list PATH             stat    stat of a name that does not exist (never cached)
      root   stat of PATH          statfs  never cached
      open   open and read PATH/film.00      create  create PATH/stranger.PID
      read   read PATH/pattern through a descriptor that was opened before --go
    With --go the children prepare, FILE.ready appears, and the calls are made when FILE appears.

stranger.py PATH hammer --stop FILE
    Lists PATH as fast as it can until FILE appears. Prints {"outcomes": {"ok:61": N, "EHOSTDOWN": N},
    "calls", "longest_ms"}, and for a call that had not returned its age "in_flight_ms" and its "state".
"""

import argparse
import errno
import json
import mmap
import os
import random
import select
import signal
import struct
import time

POLL = 0.02
STOP_GRACE = 2  # a call that is not back this long after the stop is reported as in flight


def uptime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def absent(path):
    try:
        os.stat(f"{path}/absent.{random.randrange(1 << 40)}")
    except FileNotFoundError:
        pass


def read_uncached(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, 4096, random.randrange(2000) * 4096)


def open_and_read(path):
    fd = os.open(path + "/film.00", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.read(fd, 100)


def prepared(kind, path):
    """The call of this kind, with everything done that has to happen before an outage."""
    if kind == "read":
        fd = os.open(path + "/pattern", os.O_RDONLY)
        return lambda: read_uncached(fd)
    return {
        "ls": lambda: len(os.listdir(path)),
        "stat": lambda: absent(path),
        "root": lambda: os.stat(path) and None,
        "statfs": lambda: os.statvfs(path) and None,
        "open": lambda: open_and_read(path),
        "create": lambda: os.close(os.open(f"{path}/stranger.{os.getpid()}", os.O_CREAT | os.O_WRONLY, 0o644)),
    }[kind]


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(POLL)


def outcome(call):
    """(result, value) of a call: "ok" or the name of the errno."""
    try:
        return "ok", call()
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno)), None


def where(pid):
    """State and wait channel of a process, such as "D wait_for_response"."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
        with open(f"/proc/{pid}/wchan") as f:
            return f"{state} {f.read()}"
    except OSError:
        return "gone"


def spawn(kind, path, go):
    """A child that prepares, says so with a byte, waits for go and then reports its one call."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        call = prepared(kind, path)
        os.write(writer, b".")
        if go:
            wait_for_file(go)
        start = uptime()
        result, value = outcome(call)
        report = {"kind": kind, "result": result, "ms": round((uptime() - start) * 1000, 1)}
        if kind == "ls" and value is not None:
            report["entries"] = value
        os.write(writer, json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    return kind, pid, reader


def once(path, kinds, limit, go):
    children = [spawn(kind, path, go) for kind in kinds]
    for _, _, reader in children:
        os.read(reader, 1)
    if go:
        os.close(os.open(go + ".ready", os.O_CREAT | os.O_WRONLY))
        wait_for_file(go)
    start = uptime()
    for kind, pid, reader in children:
        left = max(0, start + limit - uptime())
        if select.select([reader], [], [], left)[0]:
            print(os.read(reader, 4096).decode(), flush=True)
        else:
            ms = round((uptime() - start) * 1000, 1)
            print(json.dumps({"kind": kind, "result": "blocked", "ms": ms, "state": where(pid)}), flush=True)
            os.kill(pid, signal.SIGKILL)


class Tally:
    """What a hammering child has seen, in memory that survives it: a child that hangs can tell nobody."""

    HEAD = struct.Struct("<ddI")  # start of the call in flight (0: none), longest call, length of the outcomes

    def __init__(self):
        self.memory = mmap.mmap(-1, 65536)

    def write(self, in_flight, longest, outcomes):
        text = json.dumps(outcomes).encode()
        self.memory[self.HEAD.size:self.HEAD.size + len(text)] = text
        self.HEAD.pack_into(self.memory, 0, in_flight, longest, len(text))

    def read(self):
        in_flight, longest, length = self.HEAD.unpack_from(self.memory)
        return in_flight, longest, json.loads(self.memory[self.HEAD.size:self.HEAD.size + length])


def list_until(path, stop, tally):
    outcomes, longest = {}, 0.0
    while not os.path.exists(stop):
        start = uptime()
        tally.write(start, longest, outcomes)
        result, entries = outcome(lambda: len(os.listdir(path)))
        longest = max(longest, uptime() - start)
        key = f"ok:{entries}" if result == "ok" else result
        outcomes[key] = outcomes.get(key, 0) + 1
        tally.write(0.0, longest, outcomes)


def hammer(path, stop):
    tally = Tally()
    tally.write(0.0, 0.0, {})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        list_until(path, stop, tally)
        os._exit(0)
    os.close(writer)
    wait_for_file(stop)
    select.select([reader], [], [], STOP_GRACE)  # end of file: the child has ended
    in_flight, longest, outcomes = tally.read()
    report = {"outcomes": outcomes, "calls": sum(outcomes.values()), "longest_ms": round(longest * 1000, 1)}
    if in_flight:
        report |= {"in_flight_ms": round((uptime() - in_flight) * 1000, 1), "state": where(pid)}
    print(json.dumps(report), flush=True)
    os.kill(pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("kind")
    parser.add_argument("--limit", type=float, default=5)
    parser.add_argument("--go")
    parser.add_argument("--stop")
    args = parser.parse_args()
    if args.kind == "hammer":
        hammer(args.path, args.stop)
    else:
        once(args.path, args.kind.split(","), args.limit, args.go)
    os._exit(0)  # not sys.exit: nothing may wait for a child that cannot end


main()
