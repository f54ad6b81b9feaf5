# SPDX-License-Identifier: Apache-2.0
"""The door to libnftables, where it is shut; what the tables do is tested in namespaces."""

from __future__ import annotations

import ctypes
import errno

import pytest

from pycni.errors import SetupError
from pycni.kernel import nft, nft_tables


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)

    with pytest.raises(SetupError) as caught:
        nft.run("list tables", what="a table")

    assert "libnftables.so.1" in caught.value.message
    assert "a table" in caught.value.message
    assert caught.value.hint == "apt install libnftables1"


def test_what_nftables_refuses_is_told_in_its_words() -> None:
    with pytest.raises(SetupError) as caught:
        nft.run([{"add": {"table": {"family": "martian", "name": "pycni"}}}], what="a table")

    assert "a table" in caught.value.message
    assert "martian" in caught.value.details


def test_a_kernel_that_does_not_tell_of_tables_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> dict[nft_tables.Table, int]:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(nft_tables, "flags", refuse)

    with pytest.raises(SetupError, match="a table: not supported"):
        nft.table_exists("pycni", what="a table")
