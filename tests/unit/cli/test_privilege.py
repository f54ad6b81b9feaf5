"""Which capability is missing, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pycni.cli import privilege
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN
from pycni.errors import NotPermitted

ALL = (1 << 12) | (1 << 21) | (1 << 39)
HOST_MAP, CONTAINER_MAP = "0 0 4294967295\n", "0 100000 65536\n"


class Process:
    """A process that has these capabilities."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory, self._monkeypatch = directory, monkeypatch

    def becomes(self, *, user: int, effective: int, uid_map: str = HOST_MAP) -> None:
        status, uids = self._directory / "status", self._directory / "uid_map"
        status.write_text(f"Name:\tpycni\nCapPrm:\t0\nCapEff:\t{effective:016x}\n")
        uids.write_text(uid_map)
        self._monkeypatch.setattr(privilege, "STATUS", status)
        self._monkeypatch.setattr(privilege, "UID_MAP", uids)
        self._monkeypatch.setattr(os, "geteuid", lambda: user)


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(tmp_path, monkeypatch)


def refused(*needed: str) -> NotPermitted:
    with pytest.raises(NotPermitted) as caught:
        privilege.require(*needed)
    return caught.value


def test_a_process_that_has_them_goes_on(process: Process) -> None:
    process.becomes(user=0, effective=ALL)

    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)


def test_another_user_with_the_capabilities_goes_on(process: Process) -> None:
    process.becomes(user=1000, effective=ALL)

    privilege.require(CAP_BPF, CAP_NET_ADMIN)


def test_another_user_is_told_to_be_root(process: Process) -> None:
    process.becomes(user=1000, effective=0)

    error = refused(CAP_BPF, CAP_NET_ADMIN)

    assert error.message == "this command needs root"
    assert error.details == "user 1000, without CAP_BPF, CAP_NET_ADMIN"
    assert error.hint == "run it as root"


@pytest.mark.parametrize(
    ("effective", "lacking"),
    [
        (ALL & ~(1 << 12), "CAP_NET_ADMIN"),
        (ALL & ~(1 << 21), "CAP_SYS_ADMIN"),
        (ALL & ~(1 << 21) & ~(1 << 39), "CAP_BPF and CAP_SYS_ADMIN"),
    ],
)
def test_root_is_told_which_capability_is_missing(
    process: Process, effective: int, lacking: str
) -> None:
    process.becomes(user=0, effective=effective)

    error = refused(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)

    assert error.message == f"this command needs {lacking}, which root does not have here"
    assert "grant the capability" in error.hint


def test_root_of_a_container_is_told_that_it_is_none_of_the_host(process: Process) -> None:
    process.becomes(user=0, effective=0, uid_map=CONTAINER_MAP)

    assert "user namespace" in refused(CAP_BPF).hint


def test_cap_sys_admin_includes_cap_bpf() -> None:
    """As before Linux 5.8, which has no CAP_BPF."""
    assert privilege.missing(1 << 21, CAP_BPF, CAP_SYS_ADMIN) == []
    assert privilege.missing(1 << 39, CAP_BPF, CAP_SYS_ADMIN) == [CAP_SYS_ADMIN]


@pytest.mark.parametrize(
    ("user", "effective", "uid_map", "advice"),
    [
        (1000, ALL, HOST_MAP, "run it as root"),
        (0, ALL, HOST_MAP, ""),
        (0, ALL & ~(1 << 12), HOST_MAP, "root lacks CAP_NET_ADMIN: a container or unit took it"),
        (0, ALL, CONTAINER_MAP, "run it as root of the host"),
    ],
)
def test_what_to_do_about_a_refusal(
    process: Process, user: int, effective: int, uid_map: str, advice: str
) -> None:
    process.becomes(user=user, effective=effective, uid_map=uid_map)

    assert privilege.advice().startswith(advice)
    assert bool(privilege.advice()) == bool(advice)
