#!/usr/bin/python3
"""What a share does to those who use it: each call with its begin, its end and its result. What they mean is the driver's business.

bench.py entries RUN DIR...
    On the server: the names that the calls of a run open and list, each once.
bench.py calls DIR --run RUN --out FILE --late FILE --stop FILE
    A thread makes a call of each kind every two seconds, and another one does from the moment at which the file of
    --late appears; both have prepared before. FILE.ready of --out says that all are at work. When the file of --stop appears, writes
    {"stopped", "calls": [[kind, start, end, "ok" | errno], ...]} to --out; a call that has not returned has no end.
      read, write, fsync   on a descriptor that was opened at the beginning; a read is never served from the cache
      stat                 of a name that does not exist: never cached
      open, readdir        of a file or a directory that nobody has opened before
      statfs               never cached
bench.py speed --size BYTES --blocks BYTES[,BYTES...] --times N NAME DIR [NAME DIR...]
    Writes a file in sequence, fsync included, in turn in each DIR. Prints {NAME: {BLOCK: [{"rate", "unwritten"}, ...]}}:
    bytes per second, and the most bytes that were in the guest's cache only.
bench.py commands --limit S [--times N] NAME COMMAND [NAME COMMAND...]
    Runs all at the same time, each N times in sequence. Prints {NAME: [{"s", "result": exit code | "blocked", "said"}, ...]}.
"""

import argparse
import errno
import json
import os
import random
import re
import subprocess
import threading
import time

BLOCK = 4096
PATTERN_BLOCKS = 2000  # of load.py's library
KINDS = ("read", "write", "fsync", "stat", "open", "readdir", "statfs")
SETS = ("early", "late")
# Seven ways at once keep an emulated machine busy: with a call every second it had no time left for the outage.
INTERVAL = 2.0
# More than there are calls in a run; from there on names are used again.
ENTRIES = 150
POLL = 0.05
# From one look at what is unwritten to the next: a look is less than a millisecond of an emulated processor.
LOOK = 0.025
UNWRITTEN = re.compile(rb"^(?:Dirty|Writeback): *([0-9]+) kB", re.MULTILINE)
# A call that is not back this long after the stop is reported as not returned.
STOP_GRACE = 1.0


def uptime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def entries(run, directories):
    for directory in directories:
        for name in SETS:
            for n in range(ENTRIES):
                with open(f"{directory}/{run}.{name}.open.{n}", "w") as f:
                    f.write("x" * 100)
                os.makedirs(f"{directory}/{run}.{name}.readdir.{n}/film")


def absent(path):
    try:
        os.stat(path)
    except FileNotFoundError:
        pass


def read_uncached(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, BLOCK, random.randrange(PATTERN_BLOCKS) * BLOCK)


def write_through(fd, n):
    os.pwrite(fd, b"x" * BLOCK, n * BLOCK)
    os.fsync(fd)


def prepared(kind, path, name):
    """The call of this kind, with everything done that has to happen before an outage. Its argument counts the calls."""
    if kind == "read":
        fd = os.open(path + "/pattern", os.O_RDONLY)
        return lambda n: read_uncached(fd)
    if kind in ("write", "fsync"):
        fd = os.open(f"{path}/{name}.{kind}", os.O_CREAT | os.O_RDWR, 0o644)
        return (lambda n: os.pwrite(fd, b"x" * BLOCK, n * BLOCK)) if kind == "write" else (lambda n: write_through(fd, n))
    return {
        "stat": lambda n: absent(f"{path}/absent.{random.randrange(1 << 40)}"),
        # left open: a close that hangs would be nobody's call
        "open": lambda n: os.open(f"{path}/{name}.open.{n % ENTRIES}", os.O_RDONLY),
        "readdir": lambda n: os.listdir(f"{path}/{name}.readdir.{n % ENTRIES}"),
        "statfs": lambda n: os.statvfs(path),
    }[kind]


def outcome(call, n):
    try:
        call(n)
        return "ok"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def call_until(stop, kind, call, calls):
    """Calls of one kind until told to stop; what hangs stands in calls without an end."""
    n = 0
    while not os.path.exists(stop):
        entry = [kind, uptime(), None, ""]
        calls.append(entry)
        entry[3] = outcome(call, n)
        entry[2] = uptime()
        n += 1
        time.sleep(max(0.0, entry[1] + INTERVAL - uptime()))


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(POLL)


def call_late(late, stop, kind, call, calls):
    wait_for_file(late)
    call_until(stop, kind, call, calls)


def write_whole(path, value):
    with open(path + ".tmp", "w") as f:
        json.dump(value, f)
    os.rename(path + ".tmp", path)


def in_thread(function, *args):
    threading.Thread(target=function, args=args, daemon=True).start()


def calls(args):
    made = []
    for kind in KINDS:
        lists = [], []
        made += lists
        early, late = (prepared(kind, args.directory, f"{args.run}.{name}") for name in SETS)
        in_thread(call_until, args.stop, kind, early, lists[0])
        in_thread(call_late, args.late, args.stop, kind, late, lists[1])
    write_whole(args.out + ".ready", True)
    wait_for_file(args.stop)
    stopped = uptime()
    time.sleep(STOP_GRACE)
    write_whole(args.out, {"stopped": stopped, "calls": [list(entry) for some in made for entry in some]})


def unwritten(meminfo):
    """Bytes that are in the cache of the whole guest and nowhere else. The servers' own files are on tmpfs, which has none."""
    return 1024 * sum(int(kib) for kib in UNWRITTEN.findall(os.pread(meminfo, 8192, 0)))


def watch_unwritten(meminfo, before, written, peaks):
    """Until all is written; then appends the most that there was more than before."""
    most = before
    while not written.wait(LOOK):
        most = max(most, unwritten(meminfo))
    peaks.append(most - before)


def write_file(path, size, block, meminfo):
    data = os.urandom(block)
    os.sync()  # what others have left to write would be taken for this file's
    before, written, peaks = unwritten(meminfo), threading.Event(), []
    watch = threading.Thread(target=watch_unwritten, args=(meminfo, before, written, peaks), daemon=True)
    watch.start()
    start = uptime()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    for _ in range(size // block):
        os.write(fd, data)
    peaks.append(unwritten(meminfo) - before)  # all of it, where nothing limits it and all takes less than a look
    os.fsync(fd)
    os.close(fd)
    rate = size / (uptime() - start)
    written.set()
    watch.join()
    os.unlink(path)
    return {"rate": rate, "unwritten": max(peaks)}


def pairs(words):
    return list(zip(words[::2], words[1::2]))


def speed(args):
    meminfo = os.open("/proc/meminfo", os.O_RDONLY)
    runs = {name: {block: [] for block in args.blocks.split(",")} for name, _ in pairs(args.what)}
    for _ in range(args.times):
        for name, directory in pairs(args.what):
            for block in runs[name]:
                runs[name][block].append(write_file(f"{directory}/bench.speed", args.size, int(block), meminfo))
    print(json.dumps(runs), flush=True)


def run_command(command, limit):
    start = uptime()
    process = subprocess.Popen(["/bin/sh", "-c", "exec " + command], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        said = process.communicate(timeout=limit)[1].decode(errors="replace").strip()
        result = str(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()  # and left behind, for it may be unkillable
        result, said = "blocked", ""
    return {"s": round(uptime() - start, 4), "result": result, "said": said[-200:]}


def run_commands(command, args, reports):
    for _ in range(args.times):
        reports.append(run_command(command, args.limit))


def commands(args):
    reports = {name: [] for name, _ in pairs(args.what)}
    threads = [threading.Thread(target=run_commands, args=(command, args, reports[name]))
               for name, command in pairs(args.what)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(reports), flush=True)


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("entries")
    verb.add_argument("run")
    verb.add_argument("directories", nargs="+")
    verb = verbs.add_parser("calls")
    verb.add_argument("directory")
    for name in ("run", "out", "late", "stop"):
        verb.add_argument("--" + name, required=True)
    verb = verbs.add_parser("speed")
    verb.add_argument("--size", type=int, required=True)
    verb.add_argument("--blocks", required=True)
    verb.add_argument("--times", type=int, required=True)
    verb.add_argument("what", nargs="+")
    verb = verbs.add_parser("commands")
    verb.add_argument("--limit", type=float, required=True)
    verb.add_argument("--times", type=int, default=1)
    verb.add_argument("what", nargs="+")
    args = parser.parse_args()
    if args.verb == "entries":
        entries(args.run, args.directories)
    else:
        {"calls": calls, "speed": speed, "commands": commands}[args.verb](args)
    os._exit(0)  # not sys.exit: nothing may wait for a thread or a child that cannot end


main()
