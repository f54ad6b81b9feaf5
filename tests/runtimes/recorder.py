# SPDX-License-Identifier: Apache-2.0
"""The plugin as a runtime finds it in a test: every call is written down, and some can be held.

A script stands before the real plugin and becomes it by exec, so that a runtime which kills its
child kills the plugin.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.waiting import wait_until

SCRIPT = """#!/bin/sh
echo "$$ $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >> {directory}/calls
hang() {{
	[ -e {directory}/$1-$CNI_COMMAND ] && echo > {directory}/held-$CNI_COMMAND
	while [ -e {directory}/$1-$CNI_COMMAND ]; do sleep 0.05; done
}}
hang before
if [ -e {directory}/after-$CNI_COMMAND ]; then
	{plugin} > /dev/null
	hang after
	exit 1
fi
exec {plugin}
"""


@dataclass(frozen=True)
class Call:
    """One execution of the plugin; `netns` is empty if the runtime gave none."""

    pid: int
    command: str
    container_id: str
    ifname: str
    netns: str


class Recorder:
    """A plugin `bin_dir`/pycni that is `plugin`, with a record of its calls in `directory`."""

    def __init__(self, plugin: Path, *, bin_dir: Path, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._begin = 0
        script = bin_dir / plugin.name
        script.write_text(SCRIPT.format(directory=directory, plugin=plugin))
        script.chmod(0o755)

    def forget(self) -> None:
        """Begin anew: `calls` are those after this."""
        self._begin = len(self._all())

    def calls(self, *commands: str, container_id: str = "") -> list[Call]:
        """Calls of a command, or of any, in the order they began."""
        return [
            call
            for call in self._all()[self._begin :]
            if call.command in (commands or (call.command,))
            and call.container_id.startswith(container_id)
        ]

    def attachments(self) -> set[tuple[str, str]]:
        """Every container ID with its namespace's path, of all calls there ever were."""
        return {(call.container_id, call.netns) for call in self._all() if call.container_id}

    @contextmanager
    def holding(self, command: str, *, when: str, kill: bool = True) -> Iterator[Path]:
        """Calls of a command hang, `before` the plugin does its work or `after` that.

        Yields the path of a file that is there as soon as one hangs. Those which still hang at the
        end are killed, or go on.
        """
        switch = self._directory / f"{when}-{command}"
        held = self._directory / f"held-{command}"
        switch.touch()
        begin = len(self._all())
        try:
            yield held
        finally:
            calls = [call for call in self._all()[begin:] if call.command == command]
            if kill:
                for call in calls:
                    self._kill(call)
            switch.unlink()
            held.unlink(missing_ok=True)
            wait_until(lambda: not any(map(self._runs, calls)), "the plugin ends")

    def _all(self) -> list[Call]:
        try:
            lines = (self._directory / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [_call(line) for line in lines]

    def _kill(self, call: Call) -> None:
        if self._runs(call):
            os.kill(call.pid, signal.SIGKILL)

    def _runs(self, call: Call) -> bool:
        """Whether the process of a call is still the script, or the plugin it became."""
        try:
            words = Path(f"/proc/{call.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return any(word.endswith(b"/pycni") for word in words)


def _call(line: str) -> Call:
    pid, command, container_id, ifname, netns = line.split(" ", 4)
    return Call(int(pid), command, container_id, ifname, netns)
