"""The command line in a process that ends as by `kill -9` just before a certain statement of its ledger.

    python tests/batch_client.py "UPDATE batches" 2 evolve …    # before the second statement with this text

Without a text (""), it is just the command line.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

text, number, *command = sys.argv[1:]
left = int(number)
connect = sqlite3.connect


def watch(statement):
    global left
    if text and text in statement:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def watched(*args, **options):
    connection = connect(*args, **options)
    connection.set_trace_callback(watch)
    return connection


sqlite3.connect = watched

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from teamsrl_hf.cli import main

    sys.exit(main(command))
