# SPDX-License-Identifier: Apache-2.0
"""The exceptions of the loader.

    LoaderError
    ├── CompileError    clang, its headers or the sources are not as needed
    ├── KernelError     the kernel or its BPF library lacks something
    ├── VerifierError   the kernel refused a program; details hold the end of its log
    ├── LayoutError     a map or the configuration has another layout than the program
    ├── BpffsError      the BPF file system is missing, or not one
    └── AttachError     a tc hook could not be taken
        └── GoneError   the interface does not exist

Map operations raise plain OSError: only their caller knows what a full map means.
"""

from __future__ import annotations

REINSTALL = "the programs are not those of this version: install pycni again"
REPORT = "please report it, with this text and `pycni version`; what was loaded before goes on"
"""What to do about errors that no setting mends."""


class LoaderError(Exception):
    """What went wrong, what was found (`details`, may have many lines), what to do (`hint`)."""

    def __init__(self, message: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        hint = f"hint: {self.hint}" if self.hint else ""
        return "\n".join(part for part in (self.message, self.details, hint) if part)


class CompileError(LoaderError):
    """The C programs could not be compiled and no usable object exists."""


class KernelError(LoaderError):
    """The running kernel, or the BPF library, cannot do what is asked."""


class VerifierError(LoaderError):
    """The kernel's verifier refused a program."""


class LayoutError(LoaderError):
    """A pinned map or the configuration does not fit the program."""


class BpffsError(LoaderError):
    """The path of the pins is not on a usable BPF file system."""


class AttachError(LoaderError):
    """A program could not be attached to, or found at, an interface."""


class GoneError(AttachError):
    """The interface to attach to does not exist (any more)."""
