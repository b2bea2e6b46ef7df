#!/usr/bin/python3
"""The guest's end of the test driver: runs what appears in /host/cmd.

The driver renames NAME.sh into place. The agent claims it (rename to NAME.taken), runs it in a session of its
own, concurrently with all others, and writes NAME.out, NAME.err and, complete and last, NAME.rc. A file
NAME.kill ends the session of a command. /host/agent.up holds the id of the boot, so that the driver notices a
restart of the guest, and /host/clock the seconds since it: all limits of the driver are meant in the guest's time. Nothing here may touch a path on a share: the agent has to outlive every outage.
"""

import itertools
import os
import signal
import subprocess
import time

COMMANDS = "/host/cmd/"
# each look costs 6 ms of an emulated processor
POLL_INTERVAL = 0.1
LOOKS_PER_TIME_SHOWN = 5


def write_whole(path, text):
    """Write under another name first: the driver must never read half a file."""
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


def start(name):
    base = COMMANDS + name
    os.rename(base + ".sh", base + ".taken")
    with open(base + ".out", "wb") as out, open(base + ".err", "wb") as err:
        return subprocess.Popen(
            ["/bin/bash", base + ".taken"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/", start_new_session=True)


def kill_session(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def show_time(clock):
    os.pwrite(clock, b"%012.3f\n" % time.clock_gettime(time.CLOCK_BOOTTIME), 0)


def main():
    running = {}
    # always of the same length, so that it can be written over
    clock = os.open("/host/clock", os.O_WRONLY | os.O_CREAT)
    show_time(clock)
    with open("/proc/sys/kernel/random/boot_id") as f:
        write_whole("/host/agent.up", f.read())
    for look in itertools.count():
        if look % LOOKS_PER_TIME_SHOWN == 0:
            show_time(clock)
        for entry in sorted(os.listdir(COMMANDS)):
            name, _, suffix = entry.rpartition(".")
            if suffix == "sh":
                running[name] = start(name)
            elif suffix == "kill" and name in running:
                os.unlink(COMMANDS + entry)
                kill_session(running[name])
        for name, process in list(running.items()):
            if process.poll() is not None:
                write_whole(COMMANDS + name + ".rc", str(process.returncode))
                del running[name]
        time.sleep(POLL_INTERVAL)


main()
