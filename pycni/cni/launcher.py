# SPDX-License-Identifier: Apache-2.0
"""The launcher: launcher.c, compiled for one node, which runtimes execute in place of plugin.py.

While an agent answers, it does what plugin.py does for ADD, DEL, CHECK, GC and STATUS. In every
other case it executes plugin.py. It needs a C compiler where it is built and none where it runs.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from pycni.cni import plugin
from pycni.errors import NoLauncher

SOURCE = Path(__file__).with_suffix(".c")

COMPILERS = ("clang", "cc")
"""In the order in which they are tried. clang comes first: the BPF programs need it anyway."""

FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


def compile_launcher(*, socket: Path, script: str, marker: str) -> bytes:
    """The launcher's executable. Raises NoLauncher.

    `socket` is the agent's; `script` the name of the plugin's Python beside the launcher; `marker`
    a text that is to be found in the file.
    """
    found = [path for name in COMPILERS if (path := shutil.which(name))]
    if not found:
        raise NoLauncher(
            f"there is no C compiler ({' or '.join(COMPILERS)})", hint="apt install clang"
        )
    options = [
        f"-D{name}={value}"
        for name, value in constants(socket, script=script, marker=marker).items()
    ]
    with tempfile.TemporaryDirectory(prefix="pycni-") as directory:
        output = Path(directory) / "launcher"
        for compiler in found:
            done = subprocess.run(
                [compiler, *FLAGS, *options, "-o", output, SOURCE],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                return output.read_bytes()
    raise NoLauncher(
        f"{compiler} cannot compile {SOURCE}",
        details=done.stderr.strip(),
        hint="install another compiler, with the C library's headers: apt install clang libc6-dev",
    )


def constants(socket: Path, *, script: str, marker: str) -> dict[str, str]:
    """The constants that launcher.c shares with plugin.py, taken from there."""
    commands = ", ".join(
        "{{ {}, {}, {} }}".format(_quoted(name), *map(_milliseconds, plugin.patience(name)))
        for name in plugin.SECONDS
    )
    return {
        "SOCKET": _quoted(bytes(socket)),
        "SCRIPT": _quoted(script.encode()),
        "MARKER": _quoted(marker.encode()),
        "VERSION": _quoted(plugin.VERSIONS[-1].encode()),
        "UNANSWERED": _quoted(plugin.UNANSWERED.encode()),
        "LOST": _quoted(plugin.LOST.encode()),
        "HELLO": str(ord(plugin.HELLO)),
        "COMMANDS": commands,
        "SEND_MS": str(_milliseconds(plugin.SEND_SECONDS)),
        "STDIN_LIMIT": str(plugin.STDIN_LIMIT),
        "FRAME_LIMIT": str(plugin.FRAME_LIMIT),
    }


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _quoted(text: bytes) -> str:
    """A string of C, whatever the bytes."""
    return '"' + "".join(f"\\{byte:03o}" for byte in text) + '"'
