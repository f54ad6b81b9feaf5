# SPDX-License-Identifier: Apache-2.0
"""What machines an image can be for."""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Architecture:
    """A kind of machine; both that there are have 64 bits and the little end first."""

    name: str
    """Debian's, which is OCI's and Kubernetes' as well."""
    machine: str
    """The kernel's, uname(2)."""
    elf: int
    """In the header of its programs, elf(5): e_machine."""

    @property
    def compiler(self) -> str:
        """Debian's compiler for it, on machines of any kind."""
        return f"{self.machine}-linux-gnu-gcc"

    @property
    def compiler_packages(self) -> tuple[str, str]:
        """Where that compiler and its static C library are."""
        return (f"gcc-{self.machine.replace('_', '-')}-linux-gnu", f"libc6-dev-{self.name}-cross")


AMD64 = Architecture("amd64", "x86_64", 62)
ARM64 = Architecture("arm64", "aarch64", 183)
ALL = {one.name: one for one in (AMD64, ARM64)}


def own() -> Architecture:
    """This machine's."""
    return next(one for one in ALL.values() if one.machine == platform.machine())
