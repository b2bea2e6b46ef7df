#!/usr/bin/python3
"""verify.py OUT NAME DIR: what became of the blocks acknowledged to a writer of load.py?

OUT is the writer's --out, NAME its "ID.KIND", DIR the export as the *server* sees it (/srv/nasN/media): through
the client the page cache would show data that never arrived. Prints {"acked", "lost", "first_lost"}.
"""

import json
import os
import sys

from load import BLOCK, block


def main():
    out, name, directory = sys.argv[1:]
    with open(os.path.join(out, name + ".acked")) as f:
        acked = int(f.read())
    with open(os.path.join(directory, name), "rb") as f:
        lost = [n for n in range(acked) if f.read(BLOCK) != block(name, n)]
    print(json.dumps({"acked": acked, "lost": len(lost), "first_lost": lost[0] if lost else None}))


main()
