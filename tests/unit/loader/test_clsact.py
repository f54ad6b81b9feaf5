"""loader/clsact.py: what it makes of the kernel's refusals; no kernel."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from loader import clsact
from loader.errors import AttachError, GoneError
from loader.hooks import INGRESS, Hook

HOOK = Hook(42, "from_container")
NAME = "pycni:from_container:abc"
PROGRAM: Any = SimpleNamespace(fd=5)


@dataclass(frozen=True)
class Filter:
    kind: str
    name: str
    priority: int = clsact.PRIORITY
    handle: int = clsact.HANDLE


@dataclass
class Kernel:
    """In the place of a rtnetlink socket: a qdisc, filters at one place, and what it refuses."""

    qdisc: str | None = None
    held: list[Filter] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def _refuse(self, request: str) -> None:
        if request in self.refused:
            raise OSError(self.refused[request], "refused")

    def ingress_qdisc(self, _ifindex: int) -> str | None:
        self._refuse("ingress_qdisc")
        return self.qdisc

    def add_clsact(self, _ifindex: int) -> None:
        self._refuse("add_clsact")
        if self.qdisc is not None:
            raise OSError(errno.EEXIST, "taken")
        self.qdisc = "clsact"

    def delete_clsact(self, _ifindex: int) -> None:
        self._refuse("delete_clsact")
        self.qdisc = None

    def filters(self, _ifindex: int, parent: int) -> list[Filter]:
        self._refuse("filters")
        return self.held if parent == INGRESS else []

    def add_filter(
        self, _ifindex: int, _parent: int, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        self._refuse("add_filter")
        if self.held:
            raise OSError(errno.EEXIST, "taken")
        assert fd == PROGRAM.fd
        self.held.append(Filter("bpf", name, priority, handle))

    def replace_filter(
        self, _ifindex: int, _parent: int, *, fd: int, name: str, priority: int, handle: int
    ) -> None:
        self._refuse("replace_filter")
        assert fd == PROGRAM.fd
        self.held = [Filter("bpf", name, priority, handle)]

    def delete_filter(self, _ifindex: int, _parent: int, *, priority: int, handle: int) -> None:
        self._refuse("delete_filter")
        self.held = [one for one in self.held if (one.priority, one.handle) != (priority, handle)]


def test_a_program_is_attached_and_taken_away_with_its_qdisc() -> None:
    kernel = Kernel()

    assert clsact.attach(kernel, HOOK, PROGRAM, "abc")
    assert (kernel.qdisc, clsact.attached(kernel, 42)) == ("clsact", {"from_container": "abc"})

    assert clsact.detach(kernel, HOOK)
    assert not clsact.detach(kernel, HOOK)
    clsact.remove_clsact(kernel, 42)
    assert (kernel.qdisc, kernel.held) == (None, [])


def test_our_older_filter_is_replaced_in_the_qdisc_that_is_there() -> None:
    kernel = Kernel("clsact", [Filter("bpf", "pycni:from_container:old")])

    assert not clsact.attach(kernel, HOOK, PROGRAM, "abc")

    assert [one.name for one in kernel.held] == [NAME]


def test_a_qdisc_of_another_kind_is_named() -> None:
    with pytest.raises(AttachError, match="another kind") as caught:
        clsact.attach(Kernel("ingress"), HOOK, PROGRAM, "abc")

    assert caught.value.details == "found ingress"


@pytest.mark.parametrize("rival", [Filter("u32", ""), Filter("bpf", "theirs")], ids=str)
def test_a_place_that_others_hold_is_left_to_them(rival: Filter) -> None:
    kernel = Kernel("clsact", [rival])

    with pytest.raises(AttachError, match="held by others"):
        clsact.attach(kernel, HOOK, PROGRAM, "abc")

    assert kernel.held == [rival]


@pytest.mark.parametrize(
    ("request_", "number", "error", "hint"),
    [
        ("add_clsact", errno.ENODEV, GoneError, ""),
        ("add_clsact", errno.ENOENT, AttachError, "modprobe sch_ingress cls_bpf"),
        ("add_filter", errno.EPERM, AttachError, "run as root"),
        ("replace_filter", errno.ENOENT, AttachError, "modprobe sch_ingress cls_bpf"),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_no_qdisc(
    request_: str, number: int, error: type[AttachError], hint: str
) -> None:
    refused = {request_: number}
    if request_ == "replace_filter":
        refused["add_filter"] = errno.EINVAL
    kernel = Kernel(refused=refused)

    with pytest.raises(error) as caught:
        clsact.attach(kernel, HOOK, PROGRAM, "abc")

    assert hint in caught.value.hint
    assert kernel.qdisc is None


def test_a_link_that_goes_while_its_qdisc_is_looked_at_is_gone() -> None:
    kernel = Kernel("clsact", refused={"ingress_qdisc": errno.ENODEV})

    with pytest.raises(GoneError):
        clsact.attach(kernel, HOOK, PROGRAM, "abc")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EINVAL])
def test_what_is_gone_need_not_be_taken_away(number: int) -> None:
    held = [Filter("bpf", NAME)]

    assert clsact.detach(Kernel("clsact", held, {"delete_filter": number}), HOOK)
    clsact.remove_clsact(Kernel("clsact", refused={"delete_clsact": number}), 42)


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL])
def test_where_no_link_or_no_qdisc_is_there_are_no_filters(number: int) -> None:
    assert clsact.attached(Kernel(refused={"filters": number}), 42) == {}


def test_another_refusal_is_raised() -> None:
    with pytest.raises(OSError, match="refused"):
        clsact.attached(Kernel(refused={"filters": errno.EPERM}), 42)
