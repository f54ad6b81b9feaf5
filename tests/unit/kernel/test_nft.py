# SPDX-License-Identifier: Apache-2.0
"""The door to libnftables, where it is shut; what the tables do is tested in namespaces."""

from __future__ import annotations

import ctypes
import errno
import json

import pytest

from pycni.errors import SetupError
from pycni.kernel import nft, nft_sets, nft_tables
from pycni.kernel.nft_sets import NamedSet

THEIRS = NamedSet("ip", "kube-proxy", "cluster-ips")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[nft_tables.Table | None]:
    """For which tables sets are looked at, by a library that crashes at THEIRS."""
    tables: list[nft_tables.Table | None] = []

    def demanding(table: nft_tables.Table | None = None) -> list[NamedSet]:
        tables.append(table)
        return [] if table == ("inet", "ours") else [THEIRS, THEIRS]

    monkeypatch.setattr(nft, "release", lambda: "1.0.6")
    monkeypatch.setattr(nft_sets, "demanding", demanding)
    return tables


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


def test_a_kernel_that_does_not_tell_of_a_chain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> bool:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(nft_tables, "has_chain", refuse)

    with pytest.raises(SetupError, match="a chain: not permitted"):
        nft.has_chain("ip", "nat", "KUBE-SERVICES", what="a chain")


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    "commands",
    [
        "add table inet ours",
        [{"list": {"tables": None}}],
        [{"list": {"table": {"family": "ip", "name": "kube-proxy"}}}],
        [{"list": {"chain": {"family": "ip", "table": "kube-proxy", "name": "services"}}}],
        [{"list": {"chains": None}}, {"add": {"table": {"family": "inet", "name": "ours"}}}],
    ],
)
def test_a_library_is_not_called_for_what_it_would_crash_at(commands) -> None:
    with pytest.raises(SetupError) as caught:
        nft.run(commands, what="a table")

    assert caught.value.message == (
        "libnftables 1.0.6 is not called for a table: it would crash at set cluster-ips of table "
        "ip kube-proxy and 1 more, which a newer one wrote"
    )
    assert "libnftables1 1.1.2 or newer" in caught.value.hint


@pytest.mark.parametrize(
    ("question", "read"),
    [
        ({"chains": None}, []),
        ({"table": {"family": "inet", "name": "ours"}}, [("inet", "ours")]),
        ({"set": {"family": "inet", "table": "ours", "name": "nodes4"}}, [("inet", "ours")]),
        ({"map": {"family": "inet", "table": "ours", "name": "any4"}}, [("inet", "ours")]),
        ({"chain": {"family": "inet", "table": "ours", "name": "input"}}, [("inet", "ours")]),
    ],
)
def test_what_reads_no_set_of_others_is_asked_of_an_older_library(
    monkeypatch: pytest.MonkeyPatch, asked, question, read
) -> None:
    monkeypatch.setattr(nft, "_run", lambda *_: b'{"nftables": []}')

    assert nft.run([{"list": question}], what="a table") == []

    assert asked == read


@pytest.mark.parametrize(
    ("release", "count"), [("1.0.6", 2), ("1.1.1", 2), ("1.1.2", 0), ("1.1.3-rc1", 0), ("2.0", 0)]
)
def test_newer_libraries_need_no_look(
    monkeypatch: pytest.MonkeyPatch, asked, release: str, count: int
) -> None:
    monkeypatch.setattr(nft, "release", lambda: release)

    assert len(nft.unreadable()) == len(asked) * 2 == count


@pytest.mark.usefixtures("asked")
def test_who_may_not_ask_for_sets_is_told_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object = None) -> list[NamedSet]:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(nft_sets, "demanding", refuse)

    assert nft.unreadable() == []
    with pytest.raises(SetupError, match="a table: not permitted"):
        nft.demanding_sets("ours", what="a table")


def test_what_a_long_listing_took_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(nft.memory, "give_back", lambda: given.append(1))
    monkeypatch.setattr(nft, "_unreadable", lambda _: [])
    for elements, calls in ((10, 0), (5_000, 1)):
        output = json.dumps({"nftables": [{"set": {"elem": ["172.16.0.1"] * elements}}]}).encode()
        monkeypatch.setattr(nft, "_run", lambda *_, output=output: output)
        assert len(nft.run("list ruleset", what="all")[0]["set"]["elem"]) == elements
        assert len(given) == calls
