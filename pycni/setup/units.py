# SPDX-License-Identifier: Apache-2.0
"""The systemd units of a node: `deploy/systemd`, with this installation's paths filled in.

Writes and removes files. The caller tells systemd (`systemctl daemon-reload`). Units that pycni did
not write are never replaced or removed.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path

from pycni.errors import FileError, InvalidSettings
from pycni.files import read_regular
from pycni.settings import Settings

UNITS = ("pycni-setup.service", "pycni-agent.service")
BIRD_UNIT = "pycni-bird.service"
"""Of nodes whose settings have a table [bgp]."""

MARKER = "# Written by `pycni install --systemd`; `pycni uninstall` removes it."

PYTHON = "/opt/pycni/bin/python3"
"""The interpreter that the files in deploy/systemd name."""

HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""Directories that the units cannot see: ProtectHome= and PrivateTmp= of systemd.exec(5)."""

PLAIN = re.compile(r"/[A-Za-z0-9/._@+-]*")
"""Paths that need no quoting: blanks, quotes, '%' and '\\' have a meaning in systemd.syntax(7)."""


def _sources() -> Path:
    here = Path(__file__).resolve().parent
    installed = here / "systemd_units"
    return installed if installed.is_dir() else here.parents[1] / "deploy" / "systemd"


SOURCES = _sources()


def plan(
    unit_dir: Path, settings: Settings, *, config: Path | None, python: Path = Path(sys.executable)
) -> dict[Path, str]:
    """Paths and texts of the units; writes nothing.

    `config` is the settings file, or None for the default one. Raises FileError if there is a unit
    that pycni did not write, InvalidSettings for a path that the units could not use.
    """
    names = (*UNITS, *[BIRD_UNIT] * (settings.bgp is not None))
    texts = {
        unit_dir / name: render(name, settings, config=config, python=python) for name in names
    }
    for target in texts:
        _refuse_foreign(target)
    return texts


def install(texts: dict[Path, str]) -> list[Path]:
    """Write what `plan` made, mode 0644, and return the paths. Raises FileError."""
    with ExitStack() as undo:
        staged = []
        try:
            for target, text in texts.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                # systemd only reads files with the suffix of a unit
                temporary = target.with_name(f".{target.name}.new")
                undo.callback(temporary.unlink, missing_ok=True)
                temporary.write_text(text, encoding="utf-8")
                temporary.chmod(0o644)
                staged.append((temporary, target))
            for temporary, target in staged:
                temporary.replace(target)
        except OSError as error:
            raise FileError(
                f"units cannot be written to {target.parent}: {error.strerror}",
                hint="run as root, and choose a directory on a writable file system",
            ) from error
    return list(texts)


def plan_removal(unit_dir: Path) -> list[Path]:
    """Our units, each after the links that `systemctl enable` made to it."""
    found = []
    for name in reversed((*UNITS, BIRD_UNIT)):
        target = unit_dir / name
        if is_ours(target):
            links = [link for link in unit_dir.glob(f"*.wants/{name}") if link.is_symlink()]
            found += [*links, target]
    return found


def remove(paths: list[Path]) -> list[Path]:
    """Remove what `plan_removal` found; returns it. Raises FileError."""
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise FileError(
                f"{path} cannot be removed: {error.strerror}", hint="run as root"
            ) from error
    return paths


def uninstall(unit_dir: Path) -> list[Path]:
    """`plan_removal` and `remove`."""
    return remove(plan_removal(unit_dir))


def is_ours(target: Path) -> bool:
    """Whether `install` wrote `target`."""
    try:
        return read_regular(target).decode().startswith(f"{MARKER}\n")
    except (OSError, UnicodeDecodeError):
        return False


def render(name: str, settings: Settings, *, config: Path | None, python: Path) -> str:
    """The text of a unit. Raises InvalidSettings for a path that the unit could not use."""
    for what, path in (("python", python), ("the settings file", config)):
        if path is not None:
            _check_visible(what, path)
    options = f" --config {config}" if config is not None else ""
    lines = [MARKER]
    for line in (SOURCES / name).read_text(encoding="utf-8").splitlines():
        line = line.replace(f"{PYTHON} -I -m pycni", f"{python} -I -m pycni{options}")
        line = line.replace("/run/pycni/", f"{_plain('run_dir', settings.run_dir)}/")
        lines += _directory(line.replace("/sys/fs/bpf", _plain("bpffs", settings.bpffs)), settings)
    store = settings.store_file
    if store is not None and not store.is_relative_to(settings.state_dir):
        own = _plain("store", store.parent)
        lines.insert(lines.index("ProtectSystem=strict") + 1, f"ReadWritePaths={own}")
    return "\n".join(lines) + "\n"


def _directory(line: str, settings: Settings) -> list[str]:
    """A line of a unit. In a line about one of the node's directories: the path of the settings.

    systemd makes directories of each kind below one root only. Elsewhere the directory must exist.
    """
    directories = {
        "StateDirectory=": (Path("/var/lib"), "state_dir", settings.state_dir),
        "CacheDirectory=": (Path("/var/cache"), "cache_dir", settings.cache_dir),
        "RuntimeDirectory=": (Path("/run"), "run_dir", settings.run_dir),
    }
    for directive, (root, key, path) in directories.items():
        if line.startswith(directive):
            plain = Path(_plain(key, path))
            if plain != root and plain.is_relative_to(root):
                return [f"{directive}{plain.relative_to(root)}"]
            _check_visible(key, path)
            return [f"ReadWritePaths={plain}"]
    return [line]


def _check_visible(what: str, path: Path) -> None:
    _plain(what, path)
    for hidden in HIDDEN:
        if path.is_relative_to(hidden):
            raise InvalidSettings(
                f"{what} is {path}, and the units do not see {hidden}",
                hint="install pycni in /opt/pycni, its settings in /etc/pycni and its files in /var"
                if what in ("python", "the settings file")
                else f"choose a {what} elsewhere, such as below /var/lib",
            )


def _plain(what: str, path: Path) -> str:
    if not PLAIN.fullmatch(str(path)):
        raise InvalidSettings(
            f"{what} is {str(path)!r}, and systemd gives some of its characters a meaning",
            hint="choose a path of letters, digits and / . _ @ + -",
        )
    return str(path)


def _refuse_foreign(target: Path) -> None:
    if (target.exists() or target.is_symlink()) and not is_ours(target):
        raise FileError(
            f"{target} exists, and has no mark of pycni's: pycni did not write it",
            hint="move it away, or choose another directory with --unit-dir",
        )
