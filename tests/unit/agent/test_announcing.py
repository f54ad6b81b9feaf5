# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/announcing.py: when BIRD is to announce other addresses of Services."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.agent import announcing
from pycni.agent.announcing import Announcing
from pycni.bgp import service_addresses
from pycni.bgp.service_addresses import Told
from pycni.errors import SetupError
from pycni.settings import Settings
from unit.bgp.samples import BGP

WEB, WEB6 = ip_address("10.96.0.10"), ip_address("fd00:96::10")
NETWORKS = (ip_network("10.96.0.0/16"), ip_network("fd00:96::/108"))


class Listed:
    """A catalog."""

    def __init__(self) -> None:
        self.announced = frozenset({WEB, WEB6})


class Node:
    """Time, and kube-proxy."""

    def __init__(self) -> None:
        self.now = 100.0
        self.versions = frozenset({4, 6})
        self.looks = 0
        self.takes = 0.0
        self.fails = False

    def look(self) -> frozenset[int]:
        if self.fails:
            raise SetupError("nftables does not tell", hint="look")
        self.looks += 1
        self.now += self.takes
        return self.versions


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(announcing.kube_proxy, "versions", made.look)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    update = {"announce": ("cluster-ips",), "service_networks": NETWORKS}
    made = Settings(node_name="one", run_dir=tmp_path, bgp=BGP.model_copy(update=update))
    made.socket_path.touch()
    return made


@pytest.fixture
def listed() -> Any:
    return Listed()


@pytest.fixture
def loop(settings: Settings, node: Node, listed: Any) -> Announcing:
    return Announcing(settings, listed, lambda: node.now)


def test_what_is_announced_is_told_with_each_change(
    settings: Settings, loop: Announcing, listed: Any
) -> None:
    loop.turn(changed=True)
    assert service_addresses.load(settings) == Told(addresses=(WEB, WEB6))

    listed.announced = frozenset({WEB})
    loop.turn(changed=True)

    assert service_addresses.load(settings) == Told(addresses=(WEB,))


def test_nothing_is_announced_that_nobody_forwards(
    settings: Settings, loop: Announcing, node: Node
) -> None:
    node.versions = frozenset({4})
    loop.turn(changed=True)
    assert service_addresses.load(settings) == Told(addresses=(WEB,), unforwarded=(6,))

    node.versions = frozenset({4, 6})
    node.now += announcing.LOOK
    loop.turn(changed=False)

    assert service_addresses.load(settings) == Told(addresses=(WEB, WEB6))


def test_kube_proxy_is_looked_for_within_a_share_of_the_time(loop: Announcing, node: Node) -> None:
    node.takes = 1.0
    for _ in range(3 * announcing.SHARE):
        loop.turn(changed=False)
        node.now += 1.0

    assert node.looks == 3


def test_a_change_that_comes_too_soon_is_told_later(
    settings: Settings, loop: Announcing, listed: Any, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = service_addresses.save

    def slow(where: Settings, told: Told) -> bool:
        node.now += 0.5
        return save(where, told)

    monkeypatch.setattr(announcing.service_addresses, "save", slow)
    loop.turn(changed=True)
    listed.announced = frozenset()
    loop.turn(changed=True)
    assert service_addresses.load(settings) == Told(addresses=(WEB, WEB6))

    node.now += 0.5 * announcing.SHARE
    loop.turn(changed=False)

    assert service_addresses.load(settings) == Told()


def test_what_others_remove_is_told_again_unless_the_node_is_torn_down(
    settings: Settings, loop: Announcing
) -> None:
    loop.turn(changed=True)
    service_addresses.forget(settings)
    loop.turn(changed=False)
    assert service_addresses.load(settings) == Told(addresses=(WEB, WEB6))

    service_addresses.forget(settings)
    settings.socket_path.unlink()
    loop.turn(changed=True)

    assert service_addresses.load(settings) is None


def test_what_was_told_stays_while_nobody_can_look(
    settings: Settings, loop: Announcing, node: Node, listed: Any
) -> None:
    loop.turn(changed=True)
    node.fails, listed.announced = True, frozenset()
    node.now += announcing.LOOK

    with pytest.raises(SetupError):
        loop.turn(changed=True)

    assert service_addresses.load(settings) == Told(addresses=(WEB, WEB6))


def test_settings_that_announce_none_do_nothing(
    settings: Settings, listed: Any, node: Node
) -> None:
    plain = settings.model_copy(update={"bgp": BGP})

    Announcing(plain, listed, lambda: node.now).turn(changed=True)

    assert node.looks == 0
    assert not service_addresses.path(settings).exists()
    assert announcing.choice(plain.model_copy(update={"bgp": None})).kinds == frozenset()
