# SPDX-License-Identifier: Apache-2.0
"""loader/netkit.py: what the kernel's answers mean. Real pairs are in tests/vm."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from loader import Hook, attach, libbpf, mprog, netkit, tcx

POD = Hook(7, "from_container")


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Errno that the kernel answers with by interface; without one it lists no program."""
    codes: dict[int, int] = {}

    def query(ifindex: int, kind: int) -> list[int]:
        assert kind in (netkit.ATTACH_TYPE, *tcx.ATTACH_TYPES.values())
        if code := codes.get(ifindex):
            raise OSError(code, os.strerror(code))
        return []

    monkeypatch.setattr(libbpf, "query", query)
    return codes


def test_a_kernel_that_says_what_is_no_netkit_has_it(says: dict[int, int]) -> None:
    says[mprog.LOOPBACK] = errno.ENXIO

    assert netkit.probe()
    assert netkit.available()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM])
def test_a_kernel_that_does_not_know_it_or_us_is_told_by_its_reason(
    says: dict[int, int], code: int
) -> None:
    says[mprog.LOOPBACK] = code

    with pytest.raises(OSError, match=os.strerror(code)):
        netkit.probe()
    assert not netkit.available()


@pytest.mark.parametrize(("types", "has"), [(b"\0IFLA_NETKIT_HEADROOM\0", True), (b"", False)])
def test_the_kernels_types_say_whether_it_makes_room(
    says: dict[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, types: bytes, has: bool
) -> None:
    says[mprog.LOOPBACK] = errno.ENXIO
    (tmp_path / "vmlinux").write_bytes(b"\0some_type" + types + b"another\0")
    monkeypatch.setattr(netkit, "KERNEL_TYPES", tmp_path / "vmlinux")

    assert netkit.probe_headroom() == has


@pytest.mark.parametrize("code", mprog.NOTHING_THERE)
def test_another_interface_takes_no_program(says: dict[int, int], code: int) -> None:
    says[POD.ifindex] = code

    assert not netkit.takes(POD)
    assert not netkit.detach(POD)
    assert netkit.attached(POD.ifindex) == {}
    assert attach.way(POD) is not attach.Way.NETKIT


def test_a_missing_privilege_is_no_other_interface(says: dict[int, int]) -> None:
    says[POD.ifindex] = errno.EPERM

    with pytest.raises(PermissionError):
        netkit.takes(POD)


def test_only_what_a_pod_sends_is_the_netkits(says: dict[int, int]) -> None:
    assert says == {}  # the pod's interface is one

    assert attach.way(POD) is attach.Way.NETKIT
    assert attach.way(Hook(POD.ifindex, "to_container")) is not attach.Way.NETKIT


@pytest.mark.parametrize("by_tcx", [False, True])
@pytest.mark.parametrize("has_tcx", [False, True])
def test_a_new_endpoint_is_attached_as_asked_for_and_possible(
    monkeypatch: pytest.MonkeyPatch, by_tcx: bool, has_tcx: bool
) -> None:
    monkeypatch.setattr(tcx, "available", lambda: has_tcx)
    other = attach.Way.TCX if by_tcx and has_tcx else attach.Way.CLSACT

    def ways(*, on_netkit: bool) -> list[attach.Way]:
        return [
            attach.way_to_endpoint(program, by_tcx=by_tcx, on_netkit=on_netkit)
            for program in ("from_container", "to_container")
        ]

    assert ways(on_netkit=False) == [other, other]
    assert ways(on_netkit=True) == [attach.Way.NETKIT, other]
