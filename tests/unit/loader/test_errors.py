# SPDX-License-Identifier: Apache-2.0
"""What the loader's errors say, and what its import costs."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from loader import libbpf
from loader.errors import (
    AttachError,
    BpffsError,
    CompileError,
    GoneError,
    KernelError,
    LayoutError,
    LoaderError,
    VerifierError,
)
from loader.probe import Feature, require

CHECKOUT = Path(__file__).resolve().parents[3]


def test_error_reads_as_message_details_and_hint() -> None:
    error = CompileError("no clang", details="looked on PATH", hint="apt install clang")

    assert str(error) == "no clang\nlooked on PATH\nhint: apt install clang"
    assert (error.message, error.hint) == ("no clang", "apt install clang")


def test_error_without_details_is_one_line() -> None:
    assert str(BpffsError("no bpffs")) == "no bpffs"


@pytest.mark.parametrize(
    "kind", [AttachError, BpffsError, CompileError, GoneError, KernelError, LayoutError,
             VerifierError],
)  # fmt: skip
def test_every_error_is_a_loader_error(kind: type[Exception]) -> None:
    assert issubclass(kind, LoaderError)


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    libbpf.library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    try:
        with pytest.raises(KernelError, match=r"libbcc_bpf\.so\.0") as error:
            libbpf.library()
    finally:
        libbpf.library.cache_clear()

    assert error.value.hint == "apt install libbpfcc"


def test_missing_feature_without_fallback_is_named() -> None:
    features = [
        Feature("ringbuf", False, "the kernel refuses it", "", "drop events"),
        Feature("tcx", False, "Invalid argument", "clsact filters"),
        Feature("btf", True, "", "", "the layout check"),
    ]

    with pytest.raises(KernelError, match="lacks ringbuf") as error:
        require(features)

    assert error.value.details == "ringbuf: the kernel refuses it; needed by drop events"


def test_import_loads_neither_pyroute2_nor_a_library_nor_pycni() -> None:
    check = (
        "import sys, loader.bpf, loader.libbpf\n"
        "heavy = {'pyroute2', 'pycni', 'subprocess', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert loader.libbpf.library.cache_info().currsize == 0\n"
        "assert 'libbcc_bpf' not in open('/proc/self/maps').read()\n"
    )

    result = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{check}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.stderr == ""


def test_only_one_module_uses_ctypes() -> None:
    users = [
        path.name
        for path in (CHECKOUT / "loader").glob("*.py")
        if "import ctypes" in path.read_text() or "from ctypes" in path.read_text()
    ]

    assert users == ["libbpf.py"]
