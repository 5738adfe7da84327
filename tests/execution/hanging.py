"""A module whose import hangs in a worker, as one does that waits for a network that is not there."""

import sys
import time

if "--multiprocessing-fork" in sys.orig_argv:  # a spawned process
    time.sleep(600)


def enter() -> None:
    """What a worker would do first."""
