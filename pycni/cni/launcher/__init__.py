# SPDX-License-Identifier: Apache-2.0
"""The launcher: a CNI executable in C, which runtimes execute in place of plugin.py.

While an agent answers, it does what plugin.py does. Else it becomes `pycni.once`, if the host has a
Python with pycni; if not, it works alone: DEL, STATUS and VERSION are done, and the others are to
be tried again. It is one static file that needs nothing of the host, and nothing in it belongs to
one node: where things are says a small file beside it, PATHS.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pycni.cni import plugin, protocol
from pycni.errors import FileError, NoLauncher
from pycni.names import ALIAS_HEAD, AWAY_NOTE, DEVICE, GATEWAY_MAC, NAME_HEAD

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.c")))

PREBUILT = Path(__file__).with_name(f"launcher-{platform.machine()}")
"""The executable that the wheel has for machines like this one."""

COMPILERS = ("clang", "cc")
"""In the order in which they are tried. clang comes first: the BPF programs need it anyway."""

FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-s")

MARKER = "# Written by `pycni install`; `pycni uninstall` removes it."
"""By this text in a file, `pycni uninstall` knows that it is ours."""

ELF = b"\x7fELF"

PATHS = ".pycni.paths"
"""The file beside the launcher. No network configuration can have this name as its `type`, and
runtimes look plugins up by `type`, so none takes it for a plugin."""

USUAL = {"socket": "/run/pycni/agent.sock", "run_dir": "/run/pycni", "pins": "/sys/fs/bpf/pycni"}
"""What the launcher assumes of what PATHS does not say: a node's default settings."""

RULE_PRIORITY = 7079
LOCK_SECONDS = 10.0
"""As in pods.source_rules and locks, which the launcher is not to import."""

AWAY_SECONDS = 120
"""How long an agent may be away, to restart or for its image to come, until STATUS fails."""


def launcher() -> bytes:
    """The launcher's executable: the prebuilt one if there is one. Raises NoLauncher."""
    return PREBUILT.read_bytes() if PREBUILT.exists() else compile_launcher()


def compile_launcher(compilers: Sequence[str] = ()) -> bytes:
    """The launcher's executable, compiled from its sources by the first of `compilers` that can, by
    default one of COMPILERS. Raises NoLauncher."""
    compilers = compilers or COMPILERS
    found = tuple(path for name in compilers if (path := shutil.which(name)))
    if not found:
        raise NoLauncher(
            f"there is no C compiler ({' or '.join(compilers)})", hint="apt install clang"
        )
    return _compile(found, FLAGS)


def render_paths(paths: Mapping[str, str | Path]) -> bytes:
    """The text of PATHS. Raises FileError for a path that cannot stand in it."""
    lines = [MARKER]
    for key, value in paths.items():
        if "\n" in str(value):
            raise FileError(
                f"{key} is a path with a line break, which {PATHS} cannot hold",
                details=f"found {str(value)!r}",
                hint="choose another path in the settings file",
            )
        lines.append(f"{key}={value}")
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def is_marked(content: bytes) -> bool:
    """Whether that is the content of one of the plugin's files, as `pycni install` writes them."""
    where = content if content.startswith(ELF) else content.splitlines()[:2]
    return MARKER.encode() in where


def definitions() -> list[str]:
    """The compiler's options that define what launcher and Python have in common."""
    return [f"-D{name}={value}" for name, value in constants().items()]


@cache
def _compile(compilers: tuple[str, ...], flags: tuple[str, ...]) -> bytes:
    """By the first that can; it takes seconds, so a process does it once."""
    with tempfile.TemporaryDirectory(prefix="pycni-") as directory:
        output = Path(directory) / "launcher"
        for compiler in compilers:
            done = subprocess.run(
                [compiler, *flags, *definitions(), "-o", output, *SOURCES],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode == 0:
                return output.read_bytes()
    raise NoLauncher(
        f"{compiler} cannot compile the launcher in {SOURCES[0].parent}",
        details=done.stderr.strip(),
        hint="install another compiler, with the static C library: apt install clang libc6-dev",
    )


def constants() -> dict[str, str]:
    """The constants in capitals that no header defines."""
    usual = {name.upper(): _quoted(value) for name, value in USUAL.items()}
    return usual | {
        "PATHS_NAME": _quoted(PATHS),
        "AWAY_NAME": _quoted(AWAY_NOTE),
        "AWAY_SECONDS": str(AWAY_SECONDS),
        "MARKER": _quoted(MARKER),
        "VERSIONS": ", ".join(map(_quoted, plugin.VERSIONS)),
        "NEWEST_VERSION": _quoted(plugin.VERSIONS[-1]),
        "HELLO": str(ord(plugin.HELLO)),
        "COMMANDS": ", ".join(map(_command, plugin.SECONDS)),
        "HELLO_MS": str(_milliseconds(plugin.HELLO_SECONDS)),
        "GRACE_MS": str(_milliseconds(plugin.GRACE_SECONDS)),
        "SEND_MS": str(_milliseconds(plugin.SEND_SECONDS)),
        "VERSION_MS": str(_milliseconds(plugin.VERSION_SECONDS)),
        "LOCK_MS": str(_milliseconds(LOCK_SECONDS)),
        "STDIN_LIMIT": str(plugin.STDIN_LIMIT),
        "FRAME_LIMIT": str(plugin.FRAME_LIMIT),
        "NAME_HEAD": _quoted(NAME_HEAD),
        "ALIAS_HEAD": _quoted(ALIAS_HEAD),
        "GATEWAY_MAC": ", ".join(f"0x{byte}" for byte in GATEWAY_MAC.split(":")),
        "DEVICE": _quoted(DEVICE),
        "RULE_PRIORITY": str(RULE_PRIORITY),
    }


def _command(name: bytes) -> str:
    """An initializer of struct command."""
    hello, reply = map(_milliseconds, plugin.patience(name))
    since = plugin.VERSIONS.index(protocol.SINCE.get(name.decode(), protocol.OLDEST))
    needed = protocol.REQUIRED.get(name.decode(), ())
    of_pod, in_pod = bool(needed), "CNI_NETNS" in needed
    words = (_quoted(name.decode()), hello, reply, since, int(of_pod), int(in_pod))
    return f"{{ {', '.join(map(str, words))} }}"


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _quoted(text: str) -> str:
    """A string of C, whatever the characters."""
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'
