"""pycni/pods/link_kinds.py: which kind a pod gets, how it is made, what the kernel refuses.

Real links are in tests/netns.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from loader import LoaderError, netkit
from pycni.errors import DataplaneError, InterfaceExists, InvalidConfig, PycniError
from pycni.kernel import sysctl
from pycni.kernel.links import End
from pycni.kernel.netlink import NetlinkError
from pycni.names import GATEWAY_MAC, AttachmentKey
from pycni.pods import host_end, link_kinds
from pycni.pods.lease import Lease
from pycni.pods.link_kinds import KINDS, NewLink, choose

KEY = AttachmentKey("podnet", "c1", "eth0")
NEW = NewLink(KEY, mac="02:00:00:00:00:01", mtu=1450, netns_fd=9)
ROOT = Path("/sys/fs/bpf/pycni")
HOST = 42
POD = Lease(
    key_digest=KEY.digest,
    network="podnet",
    container_id="c1",
    ifname="eth0",
    mac=NEW.mac,
    addresses=(ip_address("192.0.2.1"),),
    masquerade=True,
    host_ifname=KEY.host_ifname,
    ifindex=HOST,
)

both_kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


class Kernel:
    """In the place of an Rtnl: notes the pairs that it is asked for, or refuses them."""

    def __init__(self, refusal: int = 0) -> None:
        self.refusal = refusal
        self.asked: list[tuple[str, End, End, int]] = []

    def add_veth(self, host: End, peer: End) -> None:
        self._add("veth", host, peer, headroom=0)

    def add_netkit(self, host: End, peer: End, *, headroom: int) -> None:
        self._add("netkit", host, peer, headroom=headroom)

    def _add(self, kind: str, host: End, peer: End, *, headroom: int) -> None:
        if self.refusal:
            raise NetlinkError(self.refusal)
        self.asked.append((kind, host, peer, headroom))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is there when it has been asked for, and its parameters can be written."""
    monkeypatch.setattr(socket, "if_nametoindex", {KEY.host_ifname: HOST}.__getitem__)
    monkeypatch.setattr(sysctl, "write", lambda *_: None)


@pytest.mark.parametrize(
    ("device", "has", "kind"),
    [
        ("veth", True, "veth"),
        ("veth", False, "veth"),
        ("auto", True, "netkit"),
        ("auto", False, "veth"),
        ("netkit", True, "netkit"),
    ],
)
def test_configuration_and_kernel_choose(
    monkeypatch: pytest.MonkeyPatch, device: str, has: bool, kind: str
) -> None:
    monkeypatch.setattr(netkit, "available", lambda: has)

    assert choose(device).name == kind


def test_a_kind_that_the_kernel_lacks_is_not_replaced_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netkit, "available", lambda: False)

    with pytest.raises(InvalidConfig, match="this kernel has no netkit") as caught:
        choose("netkit")

    assert "auto" in caught.value.hint


@both_kinds
def test_a_lease_knows_its_kind(kind: link_kinds.LinkKind) -> None:
    assert link_kinds.of(replace(POD, kind=kind.name)) is kind


@pytest.mark.parametrize(("name", "headroom"), [("veth", 0), ("netkit", link_kinds.HEADROOM)])
@pytest.mark.usefixtures("made")
def test_both_ends_are_made_in_one_request(name: str, headroom: int) -> None:
    kernel = Kernel()

    assert KINDS[name].create(kernel, NEW) == HOST  # type: ignore[arg-type]

    host = End(KEY.host_ifname, GATEWAY_MAC, NEW.mtu)
    peer = End("eth0", NEW.mac, NEW.mtu, NEW.netns_fd)
    assert kernel.asked == [(name, host, peer, headroom)]


@both_kinds
@pytest.mark.parametrize(
    ("code", "error"), [(errno.EEXIST, InterfaceExists), (errno.ENOMEM, PycniError)]
)
def test_a_refusal_of_the_kernel_names_the_interface(
    kind: link_kinds.LinkKind, code: int, error: type[PycniError]
) -> None:
    with pytest.raises(error, match="eth0") as caught:
        kind.create(Kernel(code), NEW)  # type: ignore[arg-type]

    assert type(caught.value) is error


@both_kinds
def test_a_link_that_cannot_be_finished_is_deleted(
    kind: link_kinds.LinkKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(sysctl, "write", lambda *_: None)
    monkeypatch.setattr(host_end, "teardown", lambda _, ifname: deleted.append(ifname))

    with pytest.raises(OSError, match="no interface with this name"):
        kind.create(Kernel(), NEW)  # type: ignore[arg-type]

    assert deleted == [KEY.host_ifname]


@pytest.mark.parametrize(("name", "on_netkit"), [("veth", False), ("netkit", True)])
def test_programs_are_attached_as_the_kind_needs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, on_netkit: bool
) -> None:
    seen: list[object] = []

    def attach(*place: object, **how: object) -> None:
        seen.append((place, how))

    monkeypatch.setattr(link_kinds, "attach_endpoint", attach)

    KINDS[name].attach(ROOT, None, POD, by_tcx=True)  # type: ignore[arg-type]

    assert seen == [((ROOT, None, HOST), {"by_tcx": True, "on_netkit": on_netkit})]


@pytest.mark.parametrize(
    ("failure", "hint"),
    [
        (LoaderError("refused", details="log", hint="do this"), "do this"),
        (FileNotFoundError(errno.ENOENT, "gone", "/pin"), "run: pycni setup"),
    ],
    ids=["refused", "pin gone"],
)
def test_programs_that_cannot_be_attached_are_an_error_of_the_dataplane(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, hint: str
) -> None:
    def attach(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(link_kinds, "attach_endpoint", attach)

    with pytest.raises(DataplaneError, match=KEY.host_ifname) as caught:
        KINDS["veth"].attach(ROOT, None, POD, by_tcx=False)  # type: ignore[arg-type]

    assert caught.value.hint == hint


@both_kinds
def test_the_result_lists_the_host_end(kind: link_kinds.LinkKind) -> None:
    (interface,) = kind.interfaces(NEW)

    assert (interface.name, interface.mac, interface.mtu) == (KEY.host_ifname, GATEWAY_MAC, 1450)
    assert interface.sandbox == ""
