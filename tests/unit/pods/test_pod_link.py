"""What kind of link a pod gets. Links themselves are in tests/netns/test_podnet.py."""

from __future__ import annotations

import pytest

from loader import netkit
from pycni.errors import InvalidConfig
from pycni.pods.pod_link import choose_kind


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

    assert choose_kind(device) == kind


def test_what_the_kernel_has_not_is_not_silently_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netkit, "available", lambda: False)

    with pytest.raises(InvalidConfig, match="this kernel has no netkit") as caught:
        choose_kind("netkit")

    assert "auto" in caught.value.hint
