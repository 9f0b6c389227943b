"""Free ports."""

import socket
import sys
from collections import deque

# So many are kept from others at most: each is an open file.
KEPT = 200
_kept: deque[socket.socket] = deque()


def free_port() -> int:
    """A port of this machine that nothing listens on now.

    On Linux nobody else is given it: what is bound without listening refuses connections, gives way
    to a server that reuses addresses, as all of ours do, and is passed over where a port is chosen.
    """
    probe = socket.socket()
    if sys.platform == "linux":
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    port = int(probe.getsockname()[1])
    if sys.platform == "linux":
        _kept.append(probe)
        while len(_kept) > KEPT:
            _kept.popleft().close()
    else:
        probe.close()
    return port
