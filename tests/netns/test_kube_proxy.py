# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy makes in a namespace, in each of its modes, and whether it is seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycni.kernel import nft
from pycni.lab import processes
from pycni.node import kube_proxy
from support import kernel
from support.labs import within

pytestmark = pytest.mark.root


@pytest.fixture
def netns() -> Iterator[str]:
    with kernel.netns() as made:
        yield made


def seen(netns: str) -> set[int]:
    return set(within(netns, kube_proxy.versions))


def script(netns: str, text: str) -> None:
    within(netns, lambda: nft.run(text, what="a test's kube-proxy"))


def run(netns: str, command: str) -> None:
    done = processes.run(netns, command.split())
    assert done.returncode == 0, done.stderr.decode()


def test_there_is_none_at_first(netns: str) -> None:
    script(netns, "table inet kube-proxy { }")
    run(netns, "iptables-nft -t nat -N OTHERS")
    run(netns, "iptables-legacy -t nat -N OTHERS")

    assert seen(netns) == set()


@pytest.mark.parametrize(("family", "version"), [("ip", 4), ("ip6", 6)])
def test_its_table_of_nftables_is_seen_unless_it_is_switched_off(
    netns: str, family: str, version: int
) -> None:
    script(netns, f"table {family} kube-proxy {{ }}")
    assert seen(netns) == {version}

    script(netns, f"table {family} kube-proxy {{ flags dormant; }}")
    assert seen(netns) == set()


@pytest.mark.parametrize(("program", "version"), [("iptables", 4), ("ip6tables", 6)])
@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_its_chain_of_iptables_is_seen(netns: str, program: str, kind: str, version: int) -> None:
    run(netns, f"{program}-{kind} -t nat -N KUBE-SERVICES")
    assert seen(netns) == {version}

    run(netns, f"{program}-{kind} -t nat -X KUBE-SERVICES")
    assert seen(netns) == set()


def test_its_device_of_ipvs_is_seen(netns: str) -> None:
    run(netns, "ip link add kube-ipvs0 type veth peer name other")

    assert seen(netns) == {4, 6}
