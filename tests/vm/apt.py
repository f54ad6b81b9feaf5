# SPDX-License-Identifier: Apache-2.0
"""Debian's archive through apt, with lists, cache and configuration of our own.

Of the machine's configuration only what it takes to reach an archive (proxies, certificates) is
used; its sources, lists and hooks are neither read nor written. apt checks every index against the
archive's key and every package against its index.
"""

from __future__ import annotations

import email
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from pycni.files import replace_file

MIRROR = os.environ.get("PYCNI_DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"

REACHES_ARCHIVES = ("Acquire::http", "Acquire::ftp", "Acquire::Check-", "Acquire::Retries")
"""Beginnings of the machine's settings that are ours too; "Acquire::http" is https as well."""

ALL_ALIKE = "Package: *\nPin: release *\nPin-Priority: 500\n"
"""apt_preferences(5): backports and experimental count like every other suite."""


class ArchiveError(Exception):
    """The archive cannot be had; apt's own words say why."""


@dataclass(frozen=True)
class Archive:
    """Some suites of Debian's archive; `directory` is apt's own place for them."""

    suites: tuple[str, ...]
    directory: Path
    architecture: str = ARCHITECTURE

    def update(self) -> None:
        """Fetch the suites' indexes. Raises ArchiveError."""
        for needed in ("lists/partial", "cache/archives/partial", "nothing"):
            (self.directory / needed).mkdir(parents=True, exist_ok=True)
        sources = [f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in self.suites]
        replace_file(self.directory / "sources.list", "".join(sources).encode())
        replace_file(self.directory / "preferences", ALL_ALIKE.encode())
        replace_file(self.directory / "status", b"")
        replace_file(self.directory / "apt.conf", self._configuration().encode())
        self._run("apt-get", "update", "-q", "--error-on=any")

    def show(self, package: str) -> Message:
        """The fields of the newest version of a package (deb-control(5)); after `update`."""
        return email.message_from_string(
            self._run("apt-cache", "show", "--no-all-versions", package)
        )

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Fetch packages; returns their files. Raises ArchiveError."""
        target = self.directory / "packages"
        target.mkdir(exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        self._run("apt-get", "download", "-q", *packages, directory=target)
        return sorted(target.glob("*.deb"))

    def download_closure(self, packages: Sequence[str]) -> list[Path]:
        """Fetch packages and all that they depend on; returns their files. Raises ArchiveError."""
        target = self.directory / "cache" / "archives"
        for old in target.glob("*.deb"):
            old.unlink()
        only = ("--yes", "--download-only", "--no-install-recommends")
        self._run("apt-get", "install", "-q", *only, *packages)
        return sorted(target.glob("*.deb"))

    def _configuration(self) -> str:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
        ours = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Dir::State::Lists": self.directory / "lists",
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory / "cache",
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": self.directory / "nothing",
            "Dir::Etc::preferences": self.directory / "preferences",
            "Dir::Etc::preferencesparts": self.directory / "nothing",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": self.directory / "nothing",
        }
        machines = [line for line in dump.stdout.splitlines() if line.startswith(REACHES_ARCHIVES)]
        return "\n".join([*machines, *(f'{key} "{value}";' for key, value in ours.items()), ""])

    def _run(self, *command: str, directory: Path | None = None) -> str:
        environment = os.environ | {"APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C"}
        done = run(command, cwd=directory or self.directory, env=environment)
        return done.stdout


def run(
    command: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. ArchiveError with its last words if it fails or is missing."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ArchiveError(f"{command[0]} is missing: make test-packages installs it") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise ArchiveError(f"{' '.join(map(str, command))} failed:\n{said}")
    return done
