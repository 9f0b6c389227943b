"""Ends the servers of a test process when that process is gone, however it went.

`python guardian.py FOLDER`: standard input is a pipe that only the test process holds. Each line on
it is "watch PID" or "forget PID"; at its end the watched processes are killed, with their children,
and the folder is removed.
"""

import contextlib
import shutil
import sys

import psutil


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    watched: set[int] = set()
    for line in sys.stdin:
        order, pid = line.split()
        if order == "watch":
            watched.add(int(pid))
        else:
            watched.discard(int(pid))
    for pid in watched:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, timeout=5)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
