# SPDX-License-Identifier: Apache-2.0
"""Plugins executed as a runtime does, in a node's network namespace; whole processes are timed.

posix_spawn(3) of a thread that is in the namespace: no nsenter(1), whose own start would count.
What a process reads and writes are memory files, made before the clock starts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycni.kernel.namespaces import inside
from pycni.lab.topology import NETNS_DIR

IFNAME = "eth0"

Conf = dict[str, Any]


class PluginFailed(Exception):
    """A plugin that is to be timed did not do its work; nothing it took is worth knowing."""


@dataclass(frozen=True)
class Command:
    """A program, what it finds in its environment and on stdin."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""


def cni_command(
    verb: str, *, plugin: Path, conf: Conf, container: str = "", netns: str = ""
) -> Command:
    """A call of a plugin (CNI spec 1.0.0, section 2)."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": str(NETNS_DIR / netns) if netns else "",
        "CNI_IFNAME": IFNAME if netns else "",
        "CNI_PATH": f"{plugin.parent}:/usr/lib/cni",
        "PATH": os.environ["PATH"],
    }
    return Command((str(plugin),), env, json.dumps(conf).encode())


def seconds(node_netns: str, commands: Sequence[Command]) -> float:
    """From the start of the first process to the end of the last, all running at once.

    Raises PluginFailed with the words of the first that failed.
    """
    with ExitStack() as files:
        pipes = [_memory_files(command, files) for command in commands]
        namespace = os.open(NETNS_DIR / node_netns, os.O_RDONLY | os.O_CLOEXEC)
        files.callback(os.close, namespace)
        took, statuses = inside(namespace, _spawner(commands, pipes))
        for command, (_, output), status in zip(commands, pipes, statuses, strict=True):
            if status:
                said = os.pread(output, 4096, 0).decode(errors="replace")
                what = command.env.get("CNI_COMMAND", "")
                raise PluginFailed(f"{what} of {command.argv[0]} gave {status}: {said.strip()}")
    return took


def _spawner(
    commands: Sequence[Command], pipes: Sequence[tuple[int, int]]
) -> Callable[[], tuple[float, list[int]]]:
    actions = [
        [(os.POSIX_SPAWN_DUP2, source, 0)]
        + [(os.POSIX_SPAWN_DUP2, sink, number) for number in (1, 2)]
        for source, sink in pipes
    ]

    def spawn() -> tuple[float, list[int]]:
        start = time.perf_counter()
        pids = [
            os.posix_spawn(command.argv[0], command.argv, command.env, file_actions=action)
            for command, action in zip(commands, actions, strict=True)
        ]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        return time.perf_counter() - start, [os.waitstatus_to_exitcode(one) for one in statuses]

    return spawn


def _memory_files(command: Command, files: ExitStack) -> tuple[int, int]:
    source, sink = os.memfd_create("stdin"), os.memfd_create("output")
    files.callback(os.close, source)
    files.callback(os.close, sink)
    os.write(source, command.stdin)
    os.lseek(source, 0, os.SEEK_SET)
    return source, sink
