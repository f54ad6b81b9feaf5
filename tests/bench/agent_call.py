# SPDX-License-Identifier: Apache-2.0
"""What the agent does for one ADD and one DEL, done here so that it can be looked into.

Run by inside.py in a node's network namespace, with the node's settings and the calls as JSON on
stdin; prints JSON. Times are milliseconds per call. Netlink requests are counted where Python's
sockets send them; what is under a profiler is slower, so only its shares mean something.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import resource
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2.netlink import rtnl

from pycni import settings
from pycni.attachments import dispatch

WARM_UP = 5
COMMON = {2: "NLMSG_ERROR", 3: "NLMSG_DONE"}
TYPES = COMMON | {
    number: name
    for name, number in vars(rtnl).items()
    if name.startswith("RTM_") and isinstance(number, int)
}
NLMSG_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr of linux/netlink.h."""

NLM_F_DUMP = 0x300
"""Also NLM_F_REPLACE | NLM_F_EXCL of requests that are not for getting."""

FUNCTIONS = 40
"""Length of the list of them."""

Answer = Callable[[], None]


def main() -> None:
    asked = json.load(sys.stdin)
    loaded = settings.load(Path(asked["settings"]))
    calls = {
        verb: _call(verb, asked["env"], json.dumps(asked["conf"]).encode(), loaded)
        for verb in ("ADD", "DEL")
    }
    add, delete = calls["ADD"], calls["DEL"]
    for _ in range(WARM_UP):
        add()
        delete()
    rounds = [{verb: _cost(call) for verb, call in calls.items()} for _ in range(asked["rounds"])]
    messages = [{verb: _messages(call) for verb, call in calls.items()} for _ in rounds]
    profiles = {verb: cProfile.Profile() for verb in calls}
    for _ in range(asked["rounds"]):
        for verb, call in calls.items():
            profiles[verb].runcall(call)
    for verb in calls:
        costs = [one[verb] for one in rounds]
        cost = {kind: statistics.median(one[kind] for one in costs) for kind in costs[0]}
        stats = pstats.Stats(profiles[verb]).stats  # type: ignore[attr-defined]
        shares = {
            "where": _by_place(stats, asked["rounds"]),
            "functions": _functions(stats, asked["rounds"]),
        }
        requests = _medians([one[verb] for one in messages])
        document = {"verb": verb, "cost": cost, "netlink": requests, **shares}
        sys.stdout.write(json.dumps(document) + "\n")


def _call(verb: str, env: dict[str, str], stdin: bytes, loaded: Any) -> Answer:
    netns = env["CNI_NETNS"]

    def call() -> None:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            reply = dispatch.answer(env | {"CNI_COMMAND": verb}, stdin, descriptor, settings=loaded)
        finally:
            os.close(descriptor)
        if reply.status:
            sys.exit(f"{verb} failed: {reply.stdout.decode()} {reply.stderr.decode()}")

    return call


def _cost(call: Answer) -> dict[str, float]:
    """Wall time, its parts on a CPU (user, kernel), and what was spent waiting."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    parts = {"wall": wall, "user": user, "system": system, "waiting": wall - user - system}
    return {name: 1000 * value for name, value in parts.items()}


def _messages(call: Answer) -> list[tuple[str, float]]:
    """Netlink requests in their order, with the time that sending took: the kernel works in it."""
    with _watched() as seen:
        call()
    return seen


def _medians(runs: list[list[tuple[str, float]]]) -> list[tuple[str, float]]:
    """One list of several that have the same requests."""
    return [
        (same[0][0], statistics.median(took for _, took in same))
        for same in zip(*runs, strict=False)
    ]


@contextmanager
def _watched() -> Iterator[list[tuple[str, float]]]:
    """Every request that is sent through a netlink socket meanwhile: type, milliseconds."""
    seen: list[tuple[str, float]] = []

    def watching(name: str) -> Callable[..., Any]:
        original = getattr(socket.socket, name)

        def watched(self: socket.socket, data: Any, *rest: Any) -> Any:
            start = time.perf_counter()
            sent = original(self, data, *rest)
            if self.family == socket.AF_NETLINK:
                raw = bytes(data) if name != "sendmsg" else b"".join(map(bytes, data))
                took = 1000 * (time.perf_counter() - start)
                seen.extend((kind, took) for kind in _types(raw))
            return sent

        return watched

    names = ("send", "sendto", "sendall", "sendmsg")
    for name in names:
        setattr(socket.socket, name, watching(name))
    try:
        yield seen
    finally:
        for name in names:
            with suppress(AttributeError):
                delattr(socket.socket, name)  # what is under it is the C type's


def _types(raw: bytes) -> Iterator[str]:
    while len(raw) >= NLMSG_HEADER.size:
        length, kind, flags, _, _ = NLMSG_HEADER.unpack_from(raw)
        name = TYPES.get(kind, str(kind))
        yield f"{name} dump" if flags & NLM_F_DUMP == NLM_F_DUMP and "_GET" in name else name
        raw = raw[max(length + 3 & ~3, NLMSG_HEADER.size) :]


def _by_place(stats: dict[Any, Any], calls: int) -> dict[str, float]:
    total: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in stats.items():
        total[_place(file, name)] += 1000 * own / calls
    return dict(total.most_common())


def _place(file: str, name: str) -> str:
    if file == "~":
        if "_socket.socket" in name:
            return "netlink system calls"
        if "lock" in name or "epoll" in name:
            return "waiting for threads and sockets"
        if "posix." in name or "_io." in name or "fcntl" in name:
            return "files and locks"
        return "Python's builtins"
    for part, place in PLACES.items():
        if part in file:
            return place
    return "Python's standard library"


PLACES = {
    "/loader/libbpf": "bpf(2), through libbpf",
    "/pyroute2/": "pyroute2",
    "/asyncio/": "asyncio and selectors, for pyroute2",
    "/selectors": "asyncio and selectors, for pyroute2",
    "/threading": "threads",
    "/loader/": "loader",
    "/pycni/": "pycni",
    "/pydantic": "pydantic",
}


def _functions(stats: dict[Any, Any], calls: int) -> list[list[Any]]:
    """What of pycni, the loader and pyroute2's doors takes longest, callees included."""
    rows = []
    for (file, line, name), (_, count, _, through, _) in stats.items():
        short = "/".join(Path(file).parts[-2:])
        ours = _place(file, name) in ("pycni", "loader", "bpf(2), through libbpf")
        if ours or (short in ("pyroute2/iproute/linux.py", "iproute/linux.py") and count >= calls):
            rows.append([f"{short}:{line} {name}", count / calls, 1000 * through / calls])
    return sorted(rows, key=lambda row: -row[2])[:FUNCTIONS]


if __name__ == "__main__":
    main()
