# SPDX-License-Identifier: Apache-2.0
"""pycni/lan/leases.py: what is written is read, and what is no lease is none."""

from __future__ import annotations

import errno
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest

from pycni.kernel.links import Link
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rtnl import Rtnl
from pycni.lan import leases
from pycni.lan.leases import LanLease

LEASE = LanLease(
    "net",
    "container",
    "eth0",
    device="macvlan",
    mode="bridge",
    parent="eth0",
    netnsid=4,
    ifindex=2,
    addresses=(ip_address("192.0.2.64"), ip_address("2001:db8::40")),
    rules=(4,),
)


class Kernel:
    """Answers for one link in one namespace."""

    def __init__(self, link: Link | None, *, error: int = 0) -> None:
        self._link, self._error = link, error

    def link_at(self, ifindex: int, *, netnsid: int) -> Link | None:
        return self._answer(ifindex == LEASE.ifindex, netnsid)

    def link(self, ifname: str, *, netnsid: int) -> Link | None:
        return self._answer(ifname == LEASE.key.host_ifname, netnsid)

    def _answer(self, fits: bool, netnsid: int) -> Link | None:
        if self._error:
            raise NetlinkError(self._error)
        return self._link if fits and netnsid == LEASE.netnsid else None


def is_alive(lease: LanLease, link: Link | None, *, error: int = 0) -> bool:
    return leases.is_alive(cast(Rtnl, Kernel(link, error=error)), lease)


def test_a_lease_is_read_as_it_was_written(tmp_path: Path) -> None:
    leases.write(tmp_path, LEASE)

    assert leases.find(tmp_path, LEASE.key.digest) == LEASE
    assert list(leases.leases(tmp_path)) == [LEASE]
    assert LEASE.ruled == [ip_address("192.0.2.64")]


def test_what_is_forgotten_is_gone_with_its_directory(tmp_path: Path) -> None:
    leases.write(tmp_path, LEASE)

    leases.forget(tmp_path, LEASE.key.digest)
    leases.forget(tmp_path, LEASE.key.digest)
    leases.teardown(tmp_path)
    leases.teardown(tmp_path)

    assert leases.find(tmp_path, LEASE.key.digest) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"addresses": 3}', '{"addresses": ["x"]}', "[" * 100_000]
)
def test_a_file_that_is_no_lease_is_left_out(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    leases.write(tmp_path, LEASE)
    (tmp_path / leases.DIRECTORY / "other.json").write_text(content)

    assert list(leases.leases(tmp_path)) == [LEASE]
    assert "lease not read" in caplog.text


@pytest.mark.parametrize(
    "field",
    [
        {"netnsid": "4"},
        {"netnsid": -1},
        {"ifindex": 2**31},
        {"rules": ["x"]},
        {"parent": 7},
        {"device": "veth"},
        {"device": []},
        {"mode": "l2"},
        {"container_id": "another"},
        {"network": 5},
    ],
    ids=str,
)
def test_a_lease_with_a_field_that_none_has_is_left_out(
    tmp_path: Path, field: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    leases.write(tmp_path, LEASE)
    path = tmp_path / leases.DIRECTORY / f"{LEASE.key.digest}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | field))

    assert list(leases.leases(tmp_path)) == []
    assert list(leases.unreadable(tmp_path)) == [LEASE.key.digest]
    assert "lease not read" in caplog.text


@pytest.mark.parametrize(
    ("link", "alive"),
    [
        (Link(2, alias=LEASE.alias), True),
        (Link(2, alias="somebody's"), False),
        (None, False),
    ],
)
def test_a_lease_lives_as_long_as_its_link(link: Link | None, alive: bool) -> None:
    assert is_alive(LEASE, link) is alive


def test_a_namespace_that_is_gone_has_no_link() -> None:
    assert not is_alive(LEASE, None, error=errno.EINVAL)
    with pytest.raises(NetlinkError):
        is_alive(LEASE, None, error=errno.EPERM)


def test_a_lease_whose_link_was_not_made_is_not_alive_and_its_link_is_found() -> None:
    pending: Any = LanLease("net", "container", "eth0", "macvlan", "bridge", "eth0", netnsid=4)
    link = Link(9)

    assert not is_alive(pending, link)
    assert leases.link_of(cast(Rtnl, Kernel(link)), pending) is link


def test_what_a_killed_writer_left_is_known_and_goes(tmp_path: Path) -> None:
    digest = LEASE.key.digest
    assert not leases.is_left(tmp_path, digest)
    leases.write(tmp_path, LEASE)
    (written,) = (tmp_path / leases.DIRECTORY).iterdir()
    written.rename(written.with_name(f".{written.name}.new"))

    assert leases.half_written(tmp_path) == [digest]
    assert leases.is_left(tmp_path, digest)
    assert not leases.is_left(tmp_path, "another")
    leases.forget(tmp_path, digest)

    assert leases.is_empty(tmp_path)
    assert leases.is_left(tmp_path, "another")
    leases.teardown(tmp_path)
    assert not leases.is_empty(tmp_path)
