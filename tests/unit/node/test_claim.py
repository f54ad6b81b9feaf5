# SPDX-License-Identifier: Apache-2.0
"""pycni/node/claim.py: settings that a node does not belong to are refused by name."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import SetupError
from pycni.faults import Fault
from pycni.kernel.links import ALIAS_MAX
from pycni.node import claim, overlay
from pycni.settings import Settings

OWN: dict[str, Any] = {
    "node_name": "node-one",
    "state_dir": Path("/var/lib/one"),
    "bpffs": Path("/sys/fs/bpf"),
}
SETTINGS = Settings(**OWN)
OTHERS: list[dict[str, Any]] = [
    {"state_dir": Path("/var/lib/two")},
    {"bpffs": Path("/run/two/bpf")},
    {"state_dir": Path("/var/lib/two"), "bpffs": Path("/two"), "node_name": "node-two"},
]


class Host:
    """rtnetlink with one link at most: the overlay device with its alias."""

    def __init__(self, alias: str | None) -> None:
        self.alias = alias
        self.written: list[str] = []

    def link(self, name: str) -> Any:
        if name != overlay.DEVICE or self.alias is None:
            return None
        return type("Link", (), {"alias": self.alias, "ifindex": 7})()

    def set_alias(self, ifindex: int, alias: str) -> None:
        assert ifindex == 7
        self.written.append(alias)
        self.alias = alias


def host_of(**settings: Any) -> Any:
    return Host(claim.of(Settings(**OWN | settings)).alias)


def test_an_alias_says_name_and_directories() -> None:
    alias = claim.of(SETTINGS).alias

    assert claim.read(alias) == {
        "node": "node-one",
        "state_dir": "/var/lib/one",
        "bpffs": "/sys/fs/bpf",
        "run_dir": "/run/pycni",
    }
    assert not alias.startswith("pycni:1")  # the alias of a pod's link


@pytest.mark.parametrize("path", ["/a b", "/a=b", "/ä", "/a%20b"])
def test_any_path_is_read_back(path: str) -> None:
    found = claim.read(claim.of(Settings(**OWN | {"state_dir": Path(path)})).alias)

    assert found is not None
    assert found["state_dir"] == path


@pytest.mark.parametrize("long", [{"state_dir": Path("/" + "x" * 3000)},
                                  {"node_name": ".".join(["a" * 60] * 4)}])  # fmt: skip
def test_long_values_fit_and_still_tell_nodes_apart(long: dict[str, Any]) -> None:
    host = host_of(**long)

    assert len(host.alias.encode()) <= ALIAS_MAX
    claim.refuse_others(Settings(**OWN | long), host)
    with pytest.raises(SetupError):
        claim.refuse_others(Settings(**OWN | long | {"state_dir": Path("/" + "x" * 2999)}), host)


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_other_settings_are_refused_with_both_values(other: dict[str, Any]) -> None:
    with pytest.raises(SetupError) as caught:
        claim.refuse_others(Settings(**OWN | other), host_of())

    assert "the node node-one already" in caught.value.message
    for key in other.keys() - {"node_name"}:
        assert f"{key} is {OWN[key]} there, {other[key]} here" in caught.value.details
    assert "teardown" in caught.value.hint


def test_the_same_settings_are_not_refused() -> None:
    claim.refuse_others(SETTINGS, host_of())


def test_another_run_directory_is_taken_while_no_agent_serves_in_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_of(run_dir=tmp_path)
    claim.refuse_others(SETTINGS, host)

    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind("agent.sock")
        agent.listen()
        claim.refuse_others(Settings(**OWN | {"run_dir": tmp_path}), host)
        with pytest.raises(SetupError, match=f"an agent of this node serves in {tmp_path}"):
            claim.refuse_others(SETTINGS, host)


@pytest.mark.parametrize("alias", [None, "", "uplink of rack 7", "pycni:1 x"])
def test_a_host_that_nobody_claims_is_free(alias: str | None) -> None:
    """Also one that a pycni without such aliases has set up."""
    claim.refuse_others(SETTINGS, Host(alias))  # type: ignore[arg-type]


def test_a_host_that_was_renamed_is_told_so() -> None:
    before = type("Node", (), {"name": "node-old"})()

    with pytest.raises(SetupError) as caught:
        claim.refuse_renaming(SETTINGS, before)

    assert "set up as the node node-old" in caught.value.message
    assert 'node_name = "node-old"' in caught.value.hint
    claim.refuse_renaming(SETTINGS, None)


def test_the_alias_is_written_once() -> None:
    host: Any = Host("")

    claim.setup(SETTINGS, host, 7)
    claim.setup(SETTINGS, host, 7)

    assert host.written == [claim.of(SETTINGS).alias]


def test_faults_name_what_differs() -> None:
    def faults(host: Any) -> list[Fault]:
        return claim.faults(SETTINGS, host.link(overlay.DEVICE))

    assert faults(Host(None)) == []
    assert faults(host_of()) == []
    (nameless,) = faults(Host(""))
    assert "without the alias" in nameless.found
    assert not nameless.todo, "the agent writes it"
    (stolen,) = faults(host_of(bpffs=Path("/two")))
    assert "bpffs is /two there, /sys/fs/bpf here" in stolen.found
    assert stolen.todo, "an agent of other settings must not take the node"


class Links:
    """rtnetlink with two links."""

    def links(self) -> list[Any]:
        return [type("Link", (), {"ifname": name, "ifindex": index})() for index, name in
                enumerate(("lo", "eth0"), 1)]  # fmt: skip


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At eth0 there is a program of ours, and nothing is pinned."""
    found = {2: {"from_underlay": "0123"}}
    monkeypatch.setattr(claim.attach, "attached", lambda _, ifindex: found.get(ifindex, {}))
    monkeypatch.setattr(claim.pins, "current", lambda _: None)


@pytest.mark.usefixtures("programs")
def test_programs_of_which_the_settings_know_nothing_are_a_strangers() -> None:
    links: Any = Links()

    with pytest.raises(SetupError) as caught:
        claim.refuse_strangers(SETTINGS, links, None)

    assert "at eth0 there is from_underlay" in caught.value.details
    assert "/var/lib/one has no record" in caught.value.details


@pytest.mark.usefixtures("programs")
def test_with_a_record_or_a_pin_they_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    links: Any = Links()
    before: Any = object()

    claim.refuse_strangers(SETTINGS, links, before)  # the file system of the pins was unmounted
    monkeypatch.setattr(claim.pins, "current", lambda _: Path("/x"))
    claim.refuse_strangers(SETTINGS, links, None)  # the record was lost
