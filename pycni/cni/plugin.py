# SPDX-License-Identifier: Apache-2.0
"""The CNI executable: hands a runtime's call to the node's agent and prints the agent's answer.

`pycni install` copies this file, with the three paths below filled in. It imports builtin modules
only (importing `json` alone would double its run time) and nothing of pycni: the system's
interpreter runs it, without site-packages. When no agent answers it becomes `pycni.once`, which
does the same work in its own process. pycni/cni/rpc.py is the other end and takes the framing from
here. Where a C compiler could be had, pycni/cni/launcher does all of this in C in its place.

    agent → plugin   HELLO, within HELLO_SECONDS of connecting: "send it, I will answer"
    plugin → agent   pack(environment, stdin), with the pod's network namespace as a descriptor
    agent → plugin   pack(exit status, stdout, stderr)

A plugin may meet the agent of the release before or after. Both ignore the fields of a frame behind
those that they know, so a release may send more of them once the release before it ignores them.
HELLO changes only when nothing of an older plugin can be understood.
"""

import posix
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

SOCKET = "/run/pycni/agent.sock"
PYTHON = "/usr/bin/python3"
SETTINGS = ""
"""The node's settings file; empty: the usual one, if there is one."""

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions of the CNI specification that pycni speaks, oldest first."""

HELLO = b"1"
"""Version of the protocol above; a plugin that gets another one does the work itself."""

STDIN_LIMIT = 16 << 20
FRAME_LIMIT = STDIN_LIMIT + (8 << 20)
"""Bytes; execve(2) allows less than 8 MiB of environment under Linux's usual stack limit."""

HELLO_SECONDS = 1.0
SEND_SECONDS = 5.0
"""How long to wait until an agent says HELLO, and until it has taken the call."""
SECONDS = {b"ADD": 20.0, b"CHECK": 10.0, b"DEL": 15.0, b"GC": 25.0, b"STATUS": 1.0}
"""What each command limits itself to; runtimes wait for minutes, except for STATUS."""

GRACE_SECONDS = 10.0
"""For undoing what ran out of time. A reply that takes longer is from an agent that is stopped."""

STATUS_SECONDS = 0.3
"""In place of HELLO_SECONDS and GRACE_SECONDS: some runtimes ask every few seconds, and wait."""

VERSION_SECONDS = 0.05
"""How long VERSION waits for stdin, which some runtimes never write."""

S_IFMT = 0o170000
S_IFREG = 0o100000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[int, bytes, bytes]


def run() -> None:
    """Answer the call in the environment and on stdin, and exit."""
    try:
        status, stdout, stderr = main(posix.environ)
    except BaseException as error:
        status, stdout, _ = failure(999, f"the plugin failed with {type(error).__name__}")
        stderr = f"{error!r}\n".encode(errors="backslashreplace")
    try:
        write(1, stdout)
    except OSError:
        status = 1
    try:
        write(2, stderr)
    except OSError:
        pass
    posix._exit(status)


def main(environ: "dict[bytes, bytes]") -> "Answer":
    """Exit status, stdout and stderr for one call; does not return if it becomes `pycni.once`."""
    command = environ.get(b"CNI_COMMAND", b"")
    if not command:
        about = f"pycni, a CNI plugin with an eBPF dataplane; CNI versions {', '.join(VERSIONS)}\n"
        return 0, b"", about.encode()
    if command == b"VERSION":
        return 0, version_reply(read_what_is_there()), b""
    try:
        stdin = read_stdin()
    except OSError:
        return run_in_process(None)
    # All of it: an IPAM plugin that we execute gets the runtime's environment, like ourselves.
    request = pack(b"\0".join(b"%b=%b" % pair for pair in environ.items()), stdin)
    until_hello, until_reply = patience(command)
    try:
        agent = connect(SOCKET, until_hello)
        send(agent, request, open_netns(environ.get(b"CNI_NETNS", b"")))
    except OSError:
        return run_in_process(stdin)
    try:
        agent.settimeout(until_reply)
        status, stdout, stderr = unpack(receive(agent.recv))[:3]
        return int(status), stdout, stderr
    except (OSError, ValueError, EOFError):
        return without_answer(command, stdin)


def patience(command: bytes) -> "tuple[float, float]":
    """Seconds to wait for HELLO, and then for the reply."""
    if command == b"STATUS":
        return STATUS_SECONDS, SECONDS[command] + STATUS_SECONDS
    return HELLO_SECONDS, SECONDS.get(command, 0) + GRACE_SECONDS


def without_answer(command: bytes, stdin: bytes) -> "Answer":
    """When an agent has taken the call and the answer is lost."""
    if command == b"ADD":  # It may be half done: the runtime's DEL clears it away.
        return failure(11, "the agent stopped during ADD; try again", stdin)
    return run_in_process(stdin)


def connect(path: str, seconds: float = HELLO_SECONDS) -> socket:
    """A connection to an agent that has said HELLO; OSError if there is none, or it is busy."""
    agent = socket(AF_UNIX, SOCK_STREAM)
    agent.settimeout(seconds)
    agent.connect(path)
    if agent.recv(1) != HELLO:
        raise OSError("no agent of this version")
    return agent


def send(agent: socket, request: bytes, netns: "int | None") -> None:
    """Send the whole request; OSError means that the agent cannot have acted on it."""
    agent.settimeout(SEND_SECONDS)
    rights = []
    if netns is not None:
        rights.append((SOL_SOCKET, SCM_RIGHTS, netns.to_bytes(4, sys.byteorder)))
    left = memoryview(request)
    left = left[agent.sendmsg([left], rights) :]
    if left:  # Sending nothing would fail if the agent has already answered and closed.
        agent.sendall(left)


def run_in_process(stdin: "bytes | None") -> "Answer":
    """Become `pycni.once`; `stdin` is given to it again, None leaves descriptor 0 as it is."""
    try:
        if stdin is not None:
            copy = posix.memfd_create("stdin")
            write(copy, stdin)
            posix.lseek(copy, 0, 0)
            posix.dup2(copy, 0)
        posix.execve(PYTHON, [PYTHON, "-I", "-m", "pycni.once", SETTINGS], posix.environ)
    except OSError as error:
        return failure(
            50,
            f"no agent answers at {SOCKET}, and {PYTHON} cannot be run (errno {error.errno}); "
            "start the agent, or run `pycni install` again",
            stdin or b"",
        )


def open_netns(path: "bytes | str") -> "int | None":
    """A descriptor of the pod's network namespace; None for what cannot be one.

    Namespaces are regular files (of nsfs); opening anything else could block or have effects.
    """
    try:
        if not path or posix.stat(path).st_mode & S_IFMT != S_IFREG:
            return None
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        return None


def read_stdin() -> bytes:
    """Stdin to its end, but no more than one byte over the limit; OSError if it cannot be read."""
    data = bytearray()
    while len(data) <= STDIN_LIMIT and (chunk := posix.read(0, STDIN_LIMIT + 1 - len(data))):
        data += chunk
    return bytes(data)


def read_what_is_there() -> bytes:
    """Stdin as far as it comes within VERSION_SECONDS; empty when it cannot be read."""
    from select import select
    from time import monotonic

    data = b""
    end = monotonic() + VERSION_SECONDS
    try:
        while (left := end - monotonic()) > 0 and select([0], [], [], left)[0]:
            chunk = posix.read(0, 1 << 16)
            if not chunk:
                break
            data += chunk
    except OSError:
        return b""
    return data


def version_reply(stdin: bytes) -> bytes:
    """The answer to VERSION (CNI spec, section 5 "Version")."""
    known = ", ".join(f'"{version}"' for version in VERSIONS)
    return f'{{"cniVersion": "{version_of(stdin)}", "supportedVersions": [{known}]}}'.encode()


def version_of(stdin: bytes) -> str:
    """The cniVersion asked for if it is one of ours, else the newest.

    A document with nothing else in it, which is what runtimes send with VERSION, is read without
    `json`.
    """
    words = stdin.split(b'"')
    if len(words) == 5 and words[1] == b"cniVersion":
        before, _, colon, asked, after = (word.strip(b" \t\r\n") for word in words)
        if (before, colon, after) == (b"{", b":", b"}") and asked == words[3]:
            for version in VERSIONS:
                if asked == version.encode():
                    return version
    import json

    try:
        version = json.loads(stdin)["cniVersion"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return VERSIONS[-1]
    return version if version in VERSIONS else VERSIONS[-1]


def failure(code: int, message: str, stdin: bytes = b"") -> "Answer":
    """The answer that reports an error (CNI spec, section 5 "Error")."""
    import json

    error = {"cniVersion": version_of(stdin), "code": code, "msg": message}
    return 1, json.dumps(error).encode(), b""


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`; OSError if it cannot be written."""
    left = memoryview(data)
    while left:
        left = left[posix.write(descriptor, left) :]


def pack(*fields: bytes) -> bytes:
    """A frame: its length, then each field after its length; lengths are 4 bytes, big endian."""
    body = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return len(body).to_bytes(4, "big") + body


def unpack(body: bytes) -> "list[bytes]":
    """The fields of a frame's body; ValueError if it is not made of fields."""
    fields = []
    while body:
        end = 4 + int.from_bytes(body[:4], "big")
        if len(body) < end:
            raise ValueError("a frame ends within a field")
        fields.append(body[4:end])
        body = body[end:]
    return fields


def receive(read: "Callable[[int], bytes]") -> bytes:
    """The body of a frame; `read(n)` gives up to n bytes. EOFError, ValueError if too long."""

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = read(count - len(data))
            if not chunk:
                raise EOFError("the peer closed the connection")
            data += chunk
        return bytes(data)

    length = int.from_bytes(exactly(4), "big")
    if length > FRAME_LIMIT:
        raise ValueError(f"a frame of {length} bytes is over the limit of {FRAME_LIMIT}")
    return exactly(length)


if __name__ == "__main__":
    run()
