#!/usr/bin/python3
"""verify.py OUT ID KIND[,KIND...] DIR: the accounts of the consumers of one load.py that have ended, or were killed.

OUT and ID are the consumers', DIR the export as the *server* sees it (/srv/nasN/media): through the client the
page cache would show data that never arrived. Prints {KIND: the summary, and for a writer "lost"}.
"""

import json
import os
import sys

from load import BLOCK, block


def lost(path, name, acked):
    """How many of the blocks that were acknowledged to a writer the server does not have."""
    with open(path, "rb") as f:
        return sum(f.read(BLOCK) != block(name, n) for n in range(acked))


def account(out, name, kind, directory):
    base = os.path.join(out, name)
    if os.path.exists(base + ".json"):
        with open(base + ".json") as f:
            summary = json.load(f)
    else:
        with open(base + ".acked") as f:
            summary = {"acked": int(f.read())}
    if kind != "reader":
        summary["lost"] = lost(os.path.join(directory, name), name, summary["acked"])
    return summary


def main():
    out, load, kinds, directory = sys.argv[1:]
    print(json.dumps({kind: account(out, f"{load}.{kind}", kind, directory) for kind in kinds.split(",")}))


main()
