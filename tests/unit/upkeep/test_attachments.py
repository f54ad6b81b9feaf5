# SPDX-License-Identifier: Apache-2.0
"""Pods that the runtime attached and that have no link: named, each with what to do."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pycni.kernel.links import Link
from pycni.lan import leases
from pycni.lan.leases import LanLease
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease
from pycni.settings import Settings
from pycni.upkeep import attachments, installed
from pycni.upkeep.description import Description
from pycni.upkeep.installed import Wanted

UNUSED: Any = None
NETWORK = "our-net"
LIST = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [{"type": "pycni"}]}
WEB = AttachmentKey(NETWORK, "c0ffee", "eth0")
FURTHER = AttachmentKey("of-multus", "c0ffee", "net1")
DB = AttachmentKey(NETWORK, "decaf", "net-1")
DEEP = base64.b64encode(b"[" * 100_000).decode()
"""JSON, nested deeper than Python follows."""
WEB_ARGS = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-0"]]


class Host:
    """A host with results of a runtime and links; after `waited`, some change."""

    def __init__(self, directory: Path) -> None:
        self.results = directory / "results"
        self.results.mkdir()
        self.of_multus = directory / "multus"
        self.conf_dir = conf_dir = directory / "net.d"
        conf_dir.mkdir()
        listed = conf_dir / "10-pycni.conflist"
        listed.write_text(json.dumps(LIST))
        self.settings = Settings(run_dir=directory / "run", state_dir=directory / "state")
        self.description = Description(self.settings, UNUSED)
        files = [Wanted(directory / "bin" / "pycni", b"", 0o755), Wanted(listed, b"{}", 0o644)]
        installed.save(self.settings, files)
        self.links: set[str] = set()
        self.on_lan: Link | None = None
        """The one link in a pod's namespace."""

    def attached(self, key: AttachmentKey, arguments: object = None, *, linked: bool) -> Path:
        path = self.results / f"{key.network}-{key.container_id}-{key.ifname}"
        path.write_text(json.dumps({"kind": "cniCacheV1", "cniArgs": arguments}))
        if linked:
            self.links.add(key.host_ifname)
        return path

    def attached_by(self, conf: object, **other: object) -> None:
        """A result of a network that is in no list; `other` replaces what the file has."""
        text = base64.b64encode(json.dumps(conf).encode()).decode()
        document = {"kind": "cniCacheV1", "config": text, "networkName": FURTHER.network,
                    "containerId": FURTHER.container_id, "ifName": FURTHER.ifname,
                    "cniArgs": WEB_ARGS} | other  # fmt: skip
        (self.results / "any-name").write_text(json.dumps(document))

    def link(self, ifname: str) -> object | None:
        return SimpleNamespace() if ifname in self.links else None

    def link_at(self, ifindex: int, *, netnsid: int) -> Link | None:
        return self.on_lan if (ifindex, netnsid) == (2, 0) else None

    def faults(self) -> list[tuple[str, str]]:
        seen: Any = SimpleNamespace(ipr=self)
        found = list(attachments.faults(self.description, seen))
        lost = {"a network", f"its interface {FURTHER.ifname}"}
        assert {fault.found for fault in found} <= {f"without {one}: its link is gone"
                                                    for one in lost}  # fmt: skip
        return sorted((fault.thing, fault.todo) for fault in found)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(attachments, "KEPT", tmp_path)
    monkeypatch.setattr(attachments, "OF_MULTUS", made.of_multus)
    monkeypatch.setattr(attachments, "MOMENT", 0)
    return made


def test_pods_with_their_links_are_right(host: Host) -> None:
    host.attached(WEB, WEB_ARGS, linked=True)
    host.attached(DB, linked=True)

    assert host.faults() == []
    assert attachments.details(host.description) == "2 known to the runtime"


def test_a_pod_whose_link_is_gone_is_named_with_what_to_do(host: Host) -> None:
    host.attached(WEB, WEB_ARGS, linked=False)
    host.attached(DB, linked=True)

    assert host.faults() == [("the pod shop/web-0", "delete it: kubectl -n shop delete pod web-0")]


@pytest.mark.parametrize("alive", [True, False])
def test_a_pod_on_the_lan_has_its_link_in_its_namespace(host: Host, alive: bool) -> None:
    host.attached(WEB, WEB_ARGS, linked=False)
    key = (WEB.network, WEB.container_id, WEB.ifname)
    lease = LanLease(*key, "macvlan", "bridge", "eth0", netnsid=0, ifindex=2)
    leases.write(host.settings.run_dir, lease)
    host.on_lan = Link(2, alias=lease.alias) if alive else None

    assert [thing for thing, _ in host.faults()] == ([] if alive else ["the pod shop/web-0"])


@pytest.mark.parametrize("named", [{}, {"cniDir": "own"}, {"cniDir": 7}])
def test_where_multus_goes_first_it_keeps_what_counts(
    host: Host, named: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path("own") if named.get("cniDir") == "own" else host.of_multus
    kept.mkdir()
    host.attached(WEB, WEB_ARGS, linked=False).parent.rename(kept / "results")
    host.results.mkdir()
    host.attached(DB, linked=False)  # of before Multus: its pod may be long gone
    multus = host.conf_dir / "00-multus.conf"
    multus.write_text(json.dumps({"name": "all", "type": "multus", **named}))

    with_multus, known = host.faults(), attachments.details(host.description)
    multus.unlink()
    without = host.faults()

    assert [name for name, _ in with_multus] == ["the pod shop/web-0"]
    assert known == "1 known to the runtime"
    assert [name for name, _ in without] == ["the container decaf"]


@pytest.mark.parametrize("arguments", [None, [], [["K8S_POD_NAME", "web"]], "text", [["one"]]])
def test_a_container_without_a_pods_name_is_told_by_its_own(host: Host, arguments: object) -> None:
    host.attached(DB, arguments, linked=False)

    assert host.faults() == [("the container decaf", "remove it, and make it anew")]


def test_names_that_others_chose_are_told_safely(host: Host) -> None:
    evil = [["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", "\x1b[2J; reboot"]]
    host.attached(WEB, evil, linked=False)

    ((thing, todo),) = host.faults()

    assert "\x1b" not in thing + todo
    assert '"' in todo


def test_what_ends_just_now_is_no_fault(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """libcni removes the file when the DEL that has ended the link has ended."""
    path = host.attached(WEB, WEB_ARGS, linked=False)
    host.attached(DB, linked=False)

    def go_on(_: float) -> None:
        path.unlink(missing_ok=True)
        host.links.add(DB.host_ifname)

    monkeypatch.setattr(time, "sleep", go_on)

    assert host.faults() == []


def test_results_of_other_networks_are_others(host: Host) -> None:
    for name in ("cni-loopback-c0ffee-lo", "our-network-c0ffee-eth0", "our-net", "our-net-c0ffee"):
        (host.results / name).write_text("{}")

    assert host.faults() == []
    assert attachments.details(host.description) == "0 known to the runtime"


@pytest.mark.parametrize("conf", [{"type": "pycni"}, {"plugins": [{"type": "pycni"}]}])
def test_a_further_network_of_a_pod_is_in_no_list_and_is_known(host: Host, conf: object) -> None:
    """Multus has it from the Kubernetes API."""
    host.attached_by(conf)
    (fault,) = attachments.faults(host.description, cast(Any, SimpleNamespace(ipr=host)))
    host.links.add(FURTHER.host_ifname)

    assert fault.thing == "the pod shop/web-0"
    assert fault.found == "without its interface net1: its link is gone"
    assert host.faults() == []
    assert attachments.details(host.description) == "1 known to the runtime"


@pytest.mark.parametrize("conf", [{"type": "macvlan"}, {"plugins": 7}, {"plugins": [7]}, 7, {}])
def test_a_further_network_of_others_is_others(host: Host, conf: object) -> None:
    host.attached_by(conf)

    assert host.faults() == []


@pytest.mark.parametrize(
    "other", [{"config": "no base64"}, {"config": 7}, {"config": "bm8="}, {"config": DEEP}]
)
def test_a_further_network_that_cannot_be_read_is_no_fault(
    host: Host, other: dict[str, object]
) -> None:
    host.attached_by({"type": "pycni"}, **other)

    assert host.faults() == []


def test_what_is_of_an_earlier_boot_has_no_link_and_no_pod(host: Host) -> None:
    path = host.attached(WEB, WEB_ARGS, linked=False)
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    os.utime(path, (before, before))

    assert host.faults() == []


def test_without_results_there_is_nothing_to_tell(host: Host) -> None:
    host.results.rmdir()

    assert host.faults() == []


def test_where_no_agent_holds_the_list_nothing_is_known(host: Host) -> None:
    host.attached(WEB, WEB_ARGS, linked=False)
    installed.close(host.settings)

    assert host.faults() == []
    assert attachments.details(host.description).startswith("not watched")


def test_a_result_that_goes_at_the_look_is_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.attached(WEB, WEB_ARGS, linked=False)
    real = Path.stat

    def gone(path: Path, **how: Any) -> os.stat_result:
        if path.parent == host.results:
            raise FileNotFoundError
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", gone)

    assert host.faults() == []


def test_the_pod_of_a_lease_is_named_by_the_runtimes_result(host: Host) -> None:
    host.attached(WEB, WEB_ARGS, linked=True)
    host.attached(DB, linked=True)
    cut = AttachmentKey(NETWORK, "../results/x", "eth0")

    assert [attachments.pod_name(lease_of(one)) for one in (WEB, DB, FURTHER, cut)] == [
        "shop/web-0", "", "", ""
    ]  # fmt: skip


def test_the_pod_of_a_lease_is_named_by_what_multus_keeps(host: Host) -> None:
    kept = host.of_multus / "results"
    kept.mkdir(parents=True)
    file = kept / f"{WEB.network}-{WEB.container_id}-{WEB.ifname}"
    file.write_text(json.dumps({"cniArgs": WEB_ARGS}))

    assert attachments.pod_name(lease_of(WEB)) == "shop/web-0"


def lease_of(key: AttachmentKey) -> Lease:
    return Lease(key.digest, key.network, key.container_id, key.ifname, "", (), masquerade=False)
