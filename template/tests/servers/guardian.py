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
    watched: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        order, number = line.split()
        pid = int(number)
        watched.pop(pid, None)
        if order == "watch":
            with contextlib.suppress(psutil.NoSuchProcess):
                watched[pid] = psutil.Process(pid)  # it knows when another takes over the number
    for server in watched.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [server, *server.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, timeout=5)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
