#!/usr/bin/python3
"""Consumers of a share that keep account of what they were promised.

load.py KIND[,KIND...] DIR --id ID --out OUT --stop FILE [--interval S]
                       a process for each KIND: reader, fsync, buffered
load.py library DIR    on the server: what the readers read and others list

A consumer does one 4 KiB operation every S seconds (0.1) until the file of --stop appears:
  reader    pread of an uncached block of DIR/pattern, compared with what must be there
  fsync     pwrite to DIR/ID.fsync, then fsync; the block is acknowledged when both succeeded
  buffered  pwrite to DIR/ID.buffered, acknowledged at once; the only fsync comes at the end
A block that was not acknowledged is written again. In OUT (never on a share) it writes:
  ID.KIND.log    a JSON line for every error and every operation longer than a second
  ID.KIND.acked  the number of blocks acknowledged (or read), up to date also when the consumer is killed
  ID.KIND.json   the summary, when it has ended
"""

import argparse
import errno
import json
import os
import sys
import time
import traceback

BLOCK = 4096
PATTERN_BLOCKS = 2000
LIBRARY_FILES = 60
SLOW = 1.0


def uptime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def block(name, n):
    """A block that can be mistaken for no other one."""
    return f"{name} {n:012d}".ljust(64).encode() * (BLOCK // 64)


def library(directory):
    with open(os.path.join(directory, "pattern"), "wb") as f:
        for n in range(PATTERN_BLOCKS):
            f.write(block("pattern", n))
    for n in range(LIBRARY_FILES):
        with open(os.path.join(directory, f"film.{n:02d}"), "w") as f:
            f.write("x" * 100)


class Account:
    """Times each operation and notes what a user would notice."""

    def __init__(self, base):
        self.log = open(base + ".log", "w", buffering=1)
        self.acked_file = os.open(base + ".acked", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
        self.acked = self.wrong = 0
        self.errors = {}
        self.longest = 0.0
        self.ack(0)

    def ack(self, count):
        self.acked = count
        os.pwrite(self.acked_file, b"%012d" % count, 0)

    def timed(self, op, call):
        """The result of the call, or None if it failed."""
        start, name, result = uptime(), "ok", None
        try:
            result = call()
        except OSError as e:
            name = errno.errorcode.get(e.errno, str(e.errno))
            self.errors[f"{op}:{name}"] = self.errors.get(f"{op}:{name}", 0) + 1
        duration = uptime() - start
        self.longest = max(self.longest, duration)
        if name != "ok" or duration > SLOW:
            self.log.write(json.dumps(
                {"start": round(start, 2), "s": round(duration, 2), "op": op, "errno": name}) + "\n")
        return result


def read_until(stopped, account, directory, interval):
    fd = os.open(os.path.join(directory, "pattern"), os.O_RDONLY)
    while not stopped():
        n = account.acked % PATTERN_BLOCKS
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = account.timed("read", lambda: os.pread(fd, BLOCK, n * BLOCK))
        if data is not None:
            account.wrong += data != block("pattern", n)
            account.ack(account.acked + 1)
        time.sleep(interval)
    account.timed("close", lambda: os.close(fd))


def write_until(stopped, account, directory, name, with_fsync, interval):
    fd = os.open(os.path.join(directory, name), os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
    while not stopped():
        n = account.acked
        done = account.timed("write", lambda: os.pwrite(fd, block(name, n), n * BLOCK)) is not None
        if done and with_fsync:
            done = account.timed("fsync", lambda: os.fsync(fd) or True) is not None
        if done:
            account.ack(n + 1)
        time.sleep(interval)
    account.timed("final fsync", lambda: os.fsync(fd))
    account.timed("close", lambda: os.close(fd))


def consume(kind, args):
    """One consumer, from its first operation to its summary."""
    name = f"{args.id}.{kind}"
    base = os.path.join(args.out, name)
    account = Account(base)

    def stopped():
        return os.path.exists(args.stop)

    if kind == "reader":
        read_until(stopped, account, args.directory, args.interval)
    else:
        write_until(stopped, account, args.directory, name, kind == "fsync", args.interval)
    summary = {"acked": account.acked, "wrong": account.wrong,
               "errors": account.errors, "longest": round(account.longest, 2)}
    with open(base + ".tmp", "w") as f:
        json.dump(summary, f)
    os.rename(base + ".tmp", base + ".json")


def start(kind, args):
    pid = os.fork()
    if pid == 0:
        try:
            consume(kind, args)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", help="library, or some of reader,fsync,buffered")
    parser.add_argument("directory")
    parser.add_argument("--id")
    parser.add_argument("--out")
    parser.add_argument("--stop")
    parser.add_argument("--interval", type=float, default=0.1)
    args = parser.parse_args()
    if args.kinds == "library":
        return library(args.directory)
    kinds = {start(kind, args): kind for kind in args.kinds.split(",")}
    while kinds:
        pid, status = os.wait()
        if status:
            print(f"consumer {kinds[pid]} ended with {os.waitstatus_to_exitcode(status)}", file=sys.stderr, flush=True)
        del kinds[pid]


if __name__ == "__main__":
    main()
