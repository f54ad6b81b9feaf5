# SPDX-License-Identifier: Apache-2.0
"""Whether the node's agent takes calls: for a probe every few seconds.

    python3 -IS alive.py [SOCKET]

Exit status 0 if it does, else 1, and a reason on stderr. It imports builtin modules only, and
nothing of pycni, so that it costs 10 ms. It asks neither store nor kernel: an agent without them
must not be started again because of that.
"""

import sys
from _socket import AF_UNIX, SOCK_STREAM, socket

SOCKET = "/run/pycni/agent.sock"
SECONDS = 5.0
"""How long the agent has to say HELLO (pycni/cni/plugin.py)."""


def ask(path: str) -> str:
    """Why the agent does not answer; empty if it does."""
    agent = socket(AF_UNIX, SOCK_STREAM)
    try:
        agent.settimeout(SECONDS)
        agent.connect(path)
        return "" if agent.recv(1) else "the connection was closed"
    except OSError as error:
        return str(error)
    finally:
        agent.close()


if __name__ == "__main__":
    place = sys.argv[1] if len(sys.argv) > 1 else SOCKET
    if reason := ask(place):
        sys.stderr.write(f"no agent answers at {place}: {reason}\n")
        sys.exit(1)
