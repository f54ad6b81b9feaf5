# SPDX-License-Identifier: Apache-2.0
"""Blocks of IPPools against a real API server and garbage collector: `make test-kube`."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_address
from typing import Any

import pytest

from cluster.waiting import until
from kube.control import Control
from kube.people import NODES, People, send
from pycni.errors import PoolFull, StoreError, TryAgain
from pycni.stores.kube import KubeStore, objects, own
from pycni.stores.kube.objects import (
    CLUSTER_NETWORK,
    CLUSTER_NETWORKS,
    IP_POOLS,
    NODE_NETWORKS,
    POD_BLOCKS,
)
from unit.stores.kube_pools import pooling
from unit.stores.stores_in_tests import CLUSTER, NODE_ONE, NODE_TWO, register_one, register_two

WHOLE4, WHOLE6 = "10.244.0.0/16", "fd00:10:244::/56"
COLLECTED = 30.0
"""Seconds until the garbage collector has done its work."""


@pytest.fixture
def pools(people: People) -> People:
    people.pool("four", WHOLE4)
    people.pool("six", WHOLE6)
    return people


def agent(people: People, name: str) -> KubeStore:
    """The store as the agent of a Node has it; RBAC and admission policy hold for it."""
    people.node(name)
    return people.store(people.token(people.pod(name)), pooled=True)


@pytest.fixture
def one(pools: People) -> KubeStore:
    return agent(pools, NODE_ONE)


@pytest.fixture
def two(pools: People) -> KubeStore:
    return agent(pools, NODE_TWO)


def claims(people: People) -> dict[str, str]:
    """Who has claimed which network."""
    listed = people.admin.get(POD_BLOCKS) or {}
    items: Any = listed["items"]
    return {one["spec"]["cidr"]: one["spec"]["node"] for one in items}


@pytest.mark.parametrize(
    ("cidr", "spec", "message"),
    [
        ("10.244.0.0", {}, "it must be a network"),
        ("10.244.0.1/24", {}, "it must be a network"),
        ("fd00:10:244::1/56", {}, "it must be a network"),
        (WHOLE4, {"disabled": "yes"}, "disabled"),
        (WHOLE4, {"nodeSelector": {"a": 7}}, "nodeSelector"),
    ],
)
def test_a_pool_that_is_wrong_is_refused(
    people: People, cidr: str, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        people.pool("bad", cidr, **spec)


def test_a_pool_keeps_its_cidr_but_may_be_disabled(people: People) -> None:
    people.pool("four", WHOLE4, nodeSelector={"zone": "a"})

    with pytest.raises(StoreError, match="a pool keeps its CIDR; disable it"):
        send(people.admin, "PATCH", f"{IP_POOLS}/four", {"spec": {"cidr": "10.244.0.0/17"}})
    send(people.admin, "PATCH", f"{IP_POOLS}/four", {"spec": {"disabled": True}})

    (pool,) = pooling(people.store(people.token(), pooled=True)).pools().valid
    assert (pool.disabled, pool.selector) == (True, (("zone", "a"),))


def test_the_cluster_network_says_where_addresses_come_from(
    control: Control, people: People
) -> None:
    url = f"kube:{control.kubeconfig('someone', token=control.token)}"
    assert KubeStore.open(url, CLUSTER).blocks() is None
    document = objects.cluster_network(CLUSTER)
    spec = objects.fields(document["spec"])
    with pytest.raises(StoreError, match="a cluster keeps its parameters"):
        send(people.admin, "PATCH", CLUSTER_NETWORK, {"spec": {"ipam": "pool"}})
    people.admin.delete(CLUSTER_NETWORK)
    try:
        with pytest.raises(StoreError, match="ipam"):
            send(people.admin, "POST", CLUSTER_NETWORKS,
                 document | {"spec": spec | {"ipam": "cloud"}})  # fmt: skip
        people.admin.create(CLUSTER_NETWORKS, document | {"spec": spec | {"ipam": "pool"}})
        assert KubeStore.open(url, CLUSTER).blocks() is not None
    finally:
        people.admin.delete(CLUSTER_NETWORK)
        control.install()


def test_nodes_have_blocks_of_their_own_and_grow(
    pools: People, one: KubeStore, two: KubeStore
) -> None:
    first, second = register_one(one), register_two(two)
    pooling(one).grow(NODE_ONE, 4)
    pooling(two).grow(NODE_TWO, 6)

    records = {record.name: record for record in one.nodes()}
    assert records[NODE_ONE].pod_cidrs == first.pod_cidrs
    assert records[NODE_TWO].pod_cidrs == second.pod_cidrs
    published = {str(cidr): record.name for record in records.values() for cidr in record.networks}
    assert len(published) == 6
    assert claims(pools) == published
    assert register_one(one) == records[NODE_ONE]


def test_of_many_that_claim_at_once_each_gets_another_block(
    people: People,
) -> None:
    """Eight blocks, eight nodes: all but one node meet others."""
    people.pool("small", "10.244.8.0/21")
    people.pool("six", WHOLE6)
    names = [f"node-{number}" for number in range(8)]
    stores = {name: agent(people, name) for name in names}

    def join(name: str, number: int) -> None:
        vtep = ip_address(f"192.0.2.{number + 1}")
        while True:
            try:
                stores[name].register(name, vtep, identity=name)
                return
            except TryAgain:
                continue

    threads = [threading.Thread(target=join, args=(name, number))
               for number, name in enumerate(names)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records = stores[names[0]].nodes()
    assert len({record.pod_cidrs[0] for record in records}) == 8
    assert claims(people) == {
        str(cidr): record.name for record in records for cidr in record.networks
    }
    with pytest.raises(PoolFull, match=r"small is full \(10\.244\.8\.0/21\)"):
        pooling(stores[names[0]]).grow(names[0], 4)


def test_an_agent_frees_its_own_blocks_only(pools: People, one: KubeStore, two: KubeStore) -> None:
    register_one(one), register_two(two)
    (block,) = pooling(one).grow(NODE_ONE, 4)
    path = f"{POD_BLOCKS}/{objects.block_name(block)}"

    for attempt in (
        lambda: two.client.delete(path),
        lambda: pooling(two).unpublish(NODE_ONE, block),
        lambda: two.client.create(POD_BLOCKS, objects.pod_block(block, NODE_ONE, "u")),
    ):
        with pytest.raises(StoreError, match="an agent writes the objects of its own node only"):
            attempt()
    pooling(one).unpublish(NODE_ONE, block)
    pooling(one).release(NODE_ONE, block)

    assert str(block) not in claims(pools)


def test_the_blocks_of_a_node_that_goes_are_free_again(
    pools: People, one: KubeStore, two: KubeStore
) -> None:
    register_one(one), register_two(two)
    pooling(one).grow(NODE_ONE, 4)

    pools.admin.delete(f"{NODES}/{NODE_ONE}")

    until(lambda: set(claims(pools).values()) == {NODE_TWO}, "its claims go", COLLECTED)
    until(lambda: [node.name for node in two.nodes()] == [NODE_TWO], "its record goes", COLLECTED)


def test_a_node_that_is_made_anew_keeps_its_blocks(pools: People, one: KubeStore) -> None:
    """Its agent lives on, and the garbage collector comes whenever it likes."""
    register_one(one)
    pooling(one).grow(NODE_ONE, 4)
    one.heartbeat(NODE_ONE, instance="a")
    (before,) = one.nodes()
    again = pools.store(pools.made_anew(NODE_ONE), pooled=True)
    uid = objects.text(objects.metadata(pools.admin.get(f"{NODES}/{NODE_ONE}") or {}), "uid")

    def is_settled() -> bool:
        own.doubt(again.client.where, [NODE_ONE])
        try:
            again.heartbeat(NODE_ONE, instance="a")
        except StoreError:
            return False
        paths = [f"{POD_BLOCKS}/{objects.block_name(cidr)}" for cidr in before.networks]
        paths.append(f"{NODE_NETWORKS}/{NODE_ONE}")
        return {objects.owner_uid(pools.admin.get(path) or {}) for path in paths} == {uid}

    until(is_settled, "record and claims belong to the new Node", COLLECTED)
    time.sleep(5.0)  # the garbage collector has seen the former Node go
    assert is_settled()
    assert again.nodes() == (before,)


def test_a_node_that_comes_again_with_another_agent_has_its_block_again(
    pools: People, one: KubeStore
) -> None:
    record = register_one(one)
    token = pools.made_anew(NODE_ONE)
    until(lambda: not claims(pools), "the claims of the former Node go", COLLECTED)

    assert register_one(pools.store(token, pooled=True)) == record
