# SPDX-License-Identifier: Apache-2.0
"""The door to libnftables, where it is shut; what the tables do is tested in namespaces."""

from __future__ import annotations

import ctypes

import pytest

from pycni.errors import SetupError
from pycni.kernel import nft


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)

    with pytest.raises(SetupError) as caught:
        nft.table_exists("pycni", what="a table")

    assert "libnftables.so.1" in caught.value.message
    assert "a table" in caught.value.message
    assert caught.value.hint == "apt install libnftables1"


def test_what_nftables_refuses_is_told_in_its_words() -> None:
    with pytest.raises(SetupError) as caught:
        nft.run([{"add": {"table": {"family": "martian", "name": "pycni"}}}], what="a table")

    assert "a table" in caught.value.message
    assert "martian" in caught.value.details
