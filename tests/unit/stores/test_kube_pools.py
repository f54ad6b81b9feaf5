# SPDX-License-Identifier: Apache-2.0
"""Blocks of IPPools in the Kubernetes store: claimed by one node, published, given back."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.errors import PlaceLost, PoolFull, PycniError, StoreError, TryAgain
from pycni.stores import Former, NodeRecord, open_store
from pycni.stores.ip_pools import Census
from pycni.stores.kube import KubeStore, blocks, objects, own, pooling
from pycni.stores.kube.access import Access
from pycni.stores.kube.client import Client
from unit.stores.kube_api import (
    CLUSTER_NETWORKS,
    IP_POOLS,
    NODE_NETWORKS,
    NODES,
    POD_BLOCKS,
    Api,
    kubeconfig,
    serving,
)
from unit.stores.kube_nodes import Nodes
from unit.stores.kube_pools import Pooled
from unit.stores.kube_pools import pooling as pooling_of
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    MACHINE_ONE,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    Clock,
    register_one,
    register_two,
)

pytestmark = pytest.mark.usefixtures("impatience")

WHOLE4, WHOLE6 = "10.244.0.0/16", "fd00:10:244::/56"
TINY4 = "10.244.8.0/23"
"""Two blocks."""
BLOCKS = [ip_network("10.244.8.0/24"), ip_network("10.244.9.0/24")]


@pytest.fixture
def pooled(api: Api) -> Pooled:
    """Two Nodes and a pool of each family."""
    found = Pooled(api)
    found.cluster()
    found.node(NODE_ONE)
    found.node(NODE_TWO)
    found.pool("four", WHOLE4)
    found.pool("six", WHOLE6)
    api.make_node = lambda _: None
    return found


@pytest.fixture
def kube(pooled: Pooled, tmp_path: Path) -> KubeStore:
    found = open_store(f"kube:{kubeconfig(tmp_path, pooled.api)}", CLUSTER)
    assert isinstance(found, KubeStore)
    return found


def tiny(pooled: Pooled) -> None:
    """IPv4 has two blocks only."""
    pooled.api.objects.delete(IP_POOLS, "four")
    pooled.pool("tiny", TINY4)


def record_of(kube: KubeStore, name: str) -> NodeRecord:
    return next(node for node in kube.nodes() if node.name == name)


# Which mode


def test_without_a_word_about_pools_there_are_none(api: Api, tmp_path: Path) -> None:
    store = open_store(f"kube:{kubeconfig(tmp_path, api)}", CLUSTER)

    assert store.blocks() is None


def test_a_source_of_addresses_of_a_newer_version_is_refused(api: Api, tmp_path: Path) -> None:
    document = objects.cluster_network(CLUSTER)
    spec = objects.fields(document["spec"]) | {"ipam": "cloud"}
    api.objects.put(CLUSTER_NETWORKS, "default", document | {"spec": spec})

    with pytest.raises(StoreError, match="says ipam: cloud, which this version"):
        open_store(f"kube:{kubeconfig(tmp_path, api)}", CLUSTER)


# The first blocks


def test_a_node_that_registers_claims_a_block_of_each_family(
    pooled: Pooled, kube: KubeStore
) -> None:
    record = register_one(kube)

    assert [cidr.version for cidr in record.pod_cidrs] == [4, 6]
    assert pooled.claims() == dict.fromkeys(record.pod_cidrs, NODE_ONE)
    assert kube.nodes() == (record,)
    node = pooled.api.objects.get(NODES, NODE_ONE)
    assert node is not None
    for block in pooled.api.objects.list(POD_BLOCKS):
        assert objects.owner_uid(block) == node["metadata"]["uid"]


def test_registering_again_claims_and_changes_nothing(pooled: Pooled, kube: KubeStore) -> None:
    record = register_one(kube)
    kube_blocks = pooling_of(kube).grow(NODE_ONE, 4)
    before = pooled.api.objects.list(NODE_NETWORKS), pooled.api.objects.list(POD_BLOCKS)

    again = register_one(kube)

    assert again == replace(record, blocks=kube_blocks)
    assert before == (pooled.api.objects.list(NODE_NETWORKS), pooled.api.objects.list(POD_BLOCKS))


def test_nodes_are_never_listed_or_watched(pooled: Pooled, kube: KubeStore) -> None:
    pooled.api.forbidden = {("PATCH", NODES), ("POST", NODES), ("DELETE", NODES)}
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)

    assert set(pooled.api.asked("GET", NODES)) == {f"{NODES}/{NODE_ONE}"}


def test_a_machine_that_is_refused_claims_nothing(pooled: Pooled, kube: KubeStore) -> None:
    register_one(kube)
    Nodes(pooled.api).renew(NODE_ONE)
    before = pooled.claims()

    with pytest.raises(StoreError, match="is already that of node"):
        kube.register(NODE_TWO, VTEP_ONE, identity=MACHINE_ONE)

    assert pooled.claims() == before


def test_without_a_node_nothing_is_claimed(pooled: Pooled, kube: KubeStore) -> None:
    pooled.api.objects.delete(NODES, NODE_ONE)

    with pytest.raises(StoreError, match=f"has no Node {NODE_ONE}"):
        register_one(kube)

    assert pooled.claims() == {}


def test_two_nodes_that_claim_at_once_have_different_blocks(
    pooled: Pooled, kube: KubeStore
) -> None:
    """Eight blocks are left for two: they cannot but meet."""
    tiny(pooled)
    register_one(kube), register_two(kube)
    pooled.pool("small", "10.244.128.0/21")

    def grow(name: str) -> None:
        for _ in range(4):
            pooling_of(kube).grow(name, 4)

    threads = [threading.Thread(target=grow, args=(name,)) for name in (NODE_ONE, NODE_TWO)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    one, two = (record_of(kube, name).blocks for name in (NODE_ONE, NODE_TWO))
    assert len(one) == len(two) == 4
    assert len({*one, *two}) == 8


# Growth


def test_a_node_grows_by_a_block_that_others_then_know(pooled: Pooled, kube: KubeStore) -> None:
    record = register_one(kube)

    (block,) = pooling_of(kube).grow(NODE_ONE, 4)

    assert (block.version, block.prefixlen) == (4, 24)
    assert kube.nodes() == (replace(record, blocks=(block,)),)
    assert pooled.claims()[block] == NODE_ONE
    assert pooling_of(kube).published(NODE_ONE) == (block,)


def test_a_block_that_another_node_claimed_a_moment_ago_is_passed_over(
    pooled: Pooled, kube: KubeStore
) -> None:
    """It is in no record yet."""
    tiny(pooled)
    wanted = next(pooling_of(kube).pools().of_family(4)[0].candidates(24, NODE_ONE))
    blocks.Blocks(kube.client).claim(wanted, NODE_TWO, uid="u")

    record = register_one(kube)

    assert wanted not in record.pod_cidrs
    assert record.pod_cidrs[0] in BLOCKS


def test_after_some_misses_the_list_of_claims_is_read(pooled: Pooled, kube: KubeStore) -> None:
    """250 of 256 blocks are claimed."""
    parts = list(ip_network(WHOLE4).subnets(new_prefix=24))
    for block in parts[:250]:
        pooled.put(POD_BLOCKS, objects.block_name(block), objects.pod_block(block, NODE_TWO, "u"))

    record = register_one(kube)

    assert record.pod_cidrs[0] in parts[250:]
    assert len(pooled.api.asked("POST", POD_BLOCKS)) <= pooling.BLIND + 2


def test_who_is_always_too_late_tries_again_later(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks.Blocks, "claim", lambda *_, **__: NODE_TWO)

    with pytest.raises(TryAgain, match="other nodes are faster to claim blocks of the pool four"):
        register_one(kube)


def test_a_node_has_a_most_of_blocks(kube: KubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    register_one(kube)
    monkeypatch.setattr(pooling, "BLOCKS_MAX", 2)
    pooling_of(kube).grow(NODE_ONE, 4), pooling_of(kube).grow(NODE_ONE, 6)

    with pytest.raises(PoolFull, match="has 2 blocks besides its pod CIDRs"):
        pooling_of(kube).grow(NODE_ONE, 4)


def test_a_node_that_is_not_registered_or_has_no_node_does_not_grow(
    pooled: Pooled, kube: KubeStore
) -> None:
    with pytest.raises(StoreError, match="is not registered"):
        pooling_of(kube).grow(NODE_ONE, 4)
    register_one(kube)
    before = pooled.claims()
    pooled.api.objects.delete(NODES, NODE_ONE)
    with pytest.raises(StoreError, match="is not registered"):
        pooling_of(kube).grow(NODE_ONE, 4)

    assert pooled.claims() == before


def test_a_record_that_goes_while_the_node_grows_leaves_a_claim_that_is_used_again(
    pooled: Pooled, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    apply = Client.apply

    def late(self: Client, path: str, document: dict[str, object]) -> bool:
        self.delete(path)
        return apply(self, path, document)

    monkeypatch.setattr(Client, "apply", late)
    with pytest.raises(StoreError, match="is not registered"):
        pooling_of(kube).grow(NODE_ONE, 4)
    monkeypatch.setattr(Client, "apply", apply)

    record = register_one(kube)

    assert pooled.claims() == dict.fromkeys(record.networks, NODE_ONE)
    assert len(record.networks) == 3


def test_a_claim_that_a_killed_process_left_is_taken_up(pooled: Pooled, kube: KubeStore) -> None:
    """It was killed between the claim and the publishing."""
    register_one(kube)
    block = ip_network("10.244.77.0/24")
    node = pooled.api.objects.get(NODES, NODE_ONE)
    assert node is not None
    blocks.Blocks(kube.client).claim(block, NODE_ONE, uid=node["metadata"]["uid"])

    assert pooling_of(kube).grow(NODE_ONE, 4) == (block,)


# Pools that are full, disabled, wrong


def test_a_full_pool_is_named(pooled: Pooled, kube: KubeStore) -> None:
    tiny(pooled)
    register_one(kube), register_two(kube)

    with pytest.raises(PoolFull) as caught:
        pooling_of(kube).grow(NODE_ONE, 4)

    assert caught.value.message == (
        f"no IPPool has a free IPv4 block for the node {NODE_ONE}: tiny is full ({TINY4})"
    )
    assert "make another IPPool" in caught.value.hint
    assert caught.value.code == 50
    pooling_of(kube).grow(NODE_ONE, 6)


def test_a_pool_that_is_added_is_used(pooled: Pooled, kube: KubeStore) -> None:
    tiny(pooled)
    register_one(kube), register_two(kube)
    pooled.pool("more", "10.244.200.0/24")

    assert pooling_of(kube).grow(NODE_ONE, 4) == (ip_network("10.244.200.0/24"),)


def test_pools_that_a_node_cannot_use_are_named_with_the_reason(
    pooled: Pooled, kube: KubeStore
) -> None:
    pooled.api.objects.delete(IP_POOLS, "four")
    pooled.pool("closed", "10.244.0.0/18", disabled=True)
    pooled.pool("elsewhere", "10.244.64.0/18", nodeSelector={"zone": "b"})
    pooled.pool("twice", WHOLE4)

    with pytest.raises(PoolFull) as caught:
        register_one(kube)

    assert "closed is disabled" in caught.value.message
    assert "elsewhere is for Nodes with other labels" in caught.value.message
    assert "twice is set aside: its CIDR 10.244.0.0/16 overlaps" in caught.value.message


def test_without_any_pool_the_error_says_so(pooled: Pooled, kube: KubeStore) -> None:
    for name in ("four", "six"):
        pooled.api.objects.delete(IP_POOLS, name)

    with pytest.raises(PoolFull, match="there is no IPPool"):
        register_one(kube)


def test_a_node_gets_blocks_of_a_pool_for_its_labels(pooled: Pooled, kube: KubeStore) -> None:
    tiny(pooled)
    pooled.pool("zone", "10.244.64.0/24", nodeSelector={"zone": "b"})
    register_one(kube), register_two(kube)
    pooled.node(NODE_TWO, zone="b")

    with pytest.raises(PoolFull):
        pooling_of(kube).grow(NODE_ONE, 4)
    assert pooling_of(kube).grow(NODE_TWO, 4) == (ip_network("10.244.64.0/24"),)


def test_blocks_of_a_pool_that_is_disabled_or_removed_stay(pooled: Pooled, kube: KubeStore) -> None:
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)
    before = record_of(kube, NODE_ONE)
    pooled.pool("four", WHOLE4, disabled=True)
    assert register_one(kube) == before

    pooled.api.objects.delete(IP_POOLS, "four")

    assert register_one(kube) == before


def test_a_pool_that_cannot_be_read_is_set_aside(pooled: Pooled, kube: KubeStore) -> None:
    """As a newer version may write it, past the schema of this one."""
    document = {"metadata": {"name": "b\u00e4d"}, "spec": {"cidr": ["10.244.0.0/16"]}}
    pooled.api.objects.put(IP_POOLS, "b\u00e4d", document)
    pooled.api.objects.put(IP_POOLS, "none", {"metadata": {"name": "none"}})

    found = pooling_of(kube).pools()

    assert found.set_aside == dict.fromkeys(("b\\xe4d", "none"), "its CIDR '' is no network")
    assert [pool.name for pool in found.valid] == ["four", "six"]


def test_an_api_server_that_is_away_is_said(pooled: Pooled, kube: KubeStore) -> None:
    register_one(kube)
    before = pooled.claims()
    pooled.api.stop()

    with pytest.raises(StoreError, match="does not answer"):
        pooling_of(kube).grow(NODE_ONE, 4)

    assert pooled.claims() == before


def test_rights_that_are_missing_are_named(pooled: Pooled, kube: KubeStore) -> None:
    pooled.api.forbidden = {("GET", IP_POOLS)}

    with pytest.raises(StoreError, match=f"forbids GET {IP_POOLS}") as caught:
        register_one(kube)

    assert "rbac.yaml" in caught.value.hint


def test_kinds_that_were_not_applied_are_named(pooled: Pooled, kube: KubeStore) -> None:
    pooled.api.absent = {IP_POOLS}

    with pytest.raises(StoreError, match=f"has no {IP_POOLS}") as caught:
        register_one(kube)

    assert "crds.yaml" in caught.value.hint


# Giving back


def test_a_block_is_given_back_in_two_steps(pooled: Pooled, kube: KubeStore) -> None:
    record = register_one(kube)
    (block,) = pooling_of(kube).grow(NODE_ONE, 4)

    pooling_of(kube).unpublish(NODE_ONE, block)
    assert record_of(kube, NODE_ONE) == record
    assert pooled.claims()[block] == NODE_ONE

    pooling_of(kube).release(NODE_ONE, block)
    assert pooled.claims() == dict.fromkeys(record.pod_cidrs, NODE_ONE)


def test_blocks_that_went_out_of_the_record_are_restored_as_far_as_they_are_free(
    pooled: Pooled, kube: KubeStore
) -> None:
    record = register_one(kube)
    (block,) = pooling_of(kube).grow(NODE_ONE, 4)
    lost = ip_network("10.244.77.0/24")
    blocks.Blocks(kube.client).claim(lost, NODE_TWO, uid="u")
    pooling_of(kube).unpublish(NODE_ONE, block)

    assert pooling_of(kube).restore(NODE_ONE, [block, lost]) == (block,)
    assert record_of(kube, NODE_ONE) == replace(record, blocks=(block,))
    assert pooled.claims()[lost] == NODE_TWO
    pooled.api.objects.delete(NODES, NODE_ONE)
    with pytest.raises(StoreError, match="is not registered"):
        pooling_of(kube).restore(NODE_ONE, [block])


def test_claims_that_are_old_and_published_by_nobody_are_tidied_up(
    pooled: Pooled, kube: KubeStore
) -> None:
    clock = Clock()
    kube = replace(kube, clock=clock)
    pooled.api.objects.clock = clock
    register_one(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    (block,) = pooling_of(kube).grow(NODE_ONE, 4)
    pooling_of(kube).unpublish(NODE_ONE, block)
    wanted = pooled.claims()
    pooling_of(kube).tidy(NODE_ONE, kept=[])
    clock.now += blocks.YOUNG + 1
    pooling_of(kube).tidy(NODE_ONE, kept=[block])
    assert pooled.claims() == wanted

    pooling_of(kube).tidy(NODE_ONE, kept=[])

    assert wanted.keys() - pooled.claims().keys() == {block}


def test_claims_of_a_node_that_is_not_registered_are_not_tidied_up(
    pooled: Pooled, kube: KubeStore
) -> None:
    """Its record went, its pods did not."""
    clock = Clock()
    kube = replace(kube, clock=clock)
    pooled.api.objects.clock = clock
    register_one(kube)
    pooled.api.objects.delete(NODE_NETWORKS, NODE_ONE)
    before = pooled.claims()
    clock.now += blocks.YOUNG + 1

    pooling_of(kube).tidy(NODE_ONE, kept=[])

    assert pooled.claims() == before
    assert pooling_of(kube).published(NODE_ONE) is None


def test_a_node_that_is_removed_leaves_no_claims(pooled: Pooled, kube: KubeStore) -> None:
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)

    kube.remove(NODE_ONE)

    assert pooled.claims() == {}


# Nodes that go, and come again


def test_a_node_that_goes_leaves_nothing_and_comes_again_to_the_same_block(
    pooled: Pooled, kube: KubeStore
) -> None:
    record = register_one(kube)
    pooled.api.objects.delete(NODES, NODE_ONE)
    pooled.collect_garbage()
    assert pooled.claims() == {}
    assert kube.nodes() == ()
    pooled.node(NODE_ONE)

    assert register_one(kube) == record


def test_a_restarted_agent_of_a_node_that_was_made_anew_claims_its_blocks_for_it(
    pooled: Pooled, kube: KubeStore
) -> None:
    """Before the garbage collector comes."""
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)
    before = record_of(kube, NODE_ONE)
    pooled.node(NODE_ONE)

    record = register_one(kube)
    pooled.collect_garbage()

    assert record == before
    assert pooled.claims() == dict.fromkeys(before.networks, NODE_ONE)
    assert kube.nodes() == (before,)


def test_a_living_agent_of_a_node_that_was_made_anew_claims_its_blocks_again(
    pooled: Pooled, kube: KubeStore
) -> None:
    """After the garbage collector took record and claims."""
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)
    before = record_of(kube, NODE_ONE)
    kube.heartbeat(NODE_ONE)
    pooled.node(NODE_ONE)
    pooled.collect_garbage()
    own.doubt(kube.client.where, [NODE_ONE])

    kube.heartbeat(NODE_ONE)
    pooled.collect_garbage()

    assert kube.nodes() == (before,)
    assert pooled.claims() == dict.fromkeys(before.networks, NODE_ONE)


def test_a_further_block_that_another_node_was_faster_to_claim_is_lost(
    pooled: Pooled, kube: KubeStore
) -> None:
    record = register_one(kube)
    register_two(kube)
    (block,) = pooling_of(kube).grow(NODE_ONE, 4)
    kube.heartbeat(NODE_ONE)
    pooled.node(NODE_ONE)
    pooled.collect_garbage()
    blocks.Blocks(kube.client).claim(block, NODE_TWO, uid="u")
    own.doubt(kube.client.where, [NODE_ONE])

    kube.heartbeat(NODE_ONE)

    assert record_of(kube, NODE_ONE) == record


def test_a_living_agent_does_not_change_its_first_block(pooled: Pooled, kube: KubeStore) -> None:
    """The gateway of its pods is in it."""
    record = register_one(kube)
    register_two(kube)
    kube.heartbeat(NODE_ONE)
    pooled.node(NODE_ONE)
    pooled.collect_garbage()
    first = record.pod_cidrs[0]
    blocks.Blocks(kube.client).claim(first, NODE_TWO, uid="u")
    own.doubt(kube.client.where, [NODE_ONE])

    with pytest.raises(PlaceLost, match=f"another node has claimed {first} while") as caught:
        kube.heartbeat(NODE_ONE)

    assert "drain this node" in caught.value.hint
    again = register_one(kube)
    assert again.pod_cidrs[0] != first
    assert again.pod_cidrs[1] == record.pod_cidrs[1]


def test_a_record_that_went_comes_again_with_what_the_node_has_claimed(
    pooled: Pooled, kube: KubeStore
) -> None:
    """An agent that starts knows of its blocks by its claims."""
    clock = Clock()
    kube = replace(kube, clock=clock)
    pooled.api.objects.clock = clock
    register_one(kube)
    clock.now += 60
    pooling_of(kube).grow(NODE_ONE, 4)
    before = record_of(kube, NODE_ONE)
    pooled.api.objects.delete(NODE_NETWORKS, NODE_ONE)

    assert register_one(kube) == before


def lose_record(pooled: Pooled, kube: KubeStore) -> tuple[NodeRecord, Former]:
    """Node one has two blocks of IPv4 with pods in both, when its Node is made anew and the garbage
    collector comes, while no agent runs."""
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)
    record = record_of(kube, NODE_ONE)
    pooled.node(NODE_ONE)
    pooled.collect_garbage()
    assert pooled.claims() == {}
    pods = tuple(cidr[7] for cidr in record.networks)
    return record, Former(record.pod_cidrs, record.blocks, pods, stays=True)


def register_with(kube: KubeStore, had: Former) -> NodeRecord:
    return kube.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, had=had)


def test_a_setup_claims_all_blocks_again_that_the_host_had(pooled: Pooled, kube: KubeStore) -> None:
    record, had = lose_record(pooled, kube)

    assert register_with(kube, had) == record
    assert pooled.claims() == dict.fromkeys(record.networks, NODE_ONE)


def test_a_node_gets_its_place_back_while_no_other_node_has_claimed_of_it(
    pooled: Pooled, kube: KubeStore
) -> None:
    record, had = lose_record(pooled, kube)
    assert kube.keeps(NODE_ONE, had)
    pooled.api.objects.delete(NODES, NODE_ONE)
    assert not kube.keeps(NODE_ONE, had)
    pooled.node(NODE_ONE)

    blocks.Blocks(kube.client).claim(record.networks[-1], NODE_TWO, uid="u")

    assert not kube.keeps(NODE_ONE, had)


@pytest.mark.parametrize(("lost", "reason"), [(0, "but its pods"), (-1, "which it has no more")])
def test_a_node_with_pods_that_is_refused_keeps_the_claims_that_it_still_gets(
    pooled: Pooled, kube: KubeStore, lost: int, reason: str
) -> None:
    """Another node would give addresses of living pods. And it claims nothing else."""
    record, had = lose_record(pooled, kube)
    gone = record.networks[lost]
    blocks.Blocks(kube.client).claim(gone, NODE_TWO, uid="u")

    for _ in range(2):
        with pytest.raises(PlaceLost, match=reason):
            register_with(kube, had)

        kept = dict.fromkeys(set(record.networks) - {gone}, NODE_ONE)
        assert pooled.claims() == kept | {gone: NODE_TWO}
    assert kube.nodes() == ()


def test_a_first_block_that_is_lost_is_refused_before_the_record_changes(
    pooled: Pooled, kube: KubeStore
) -> None:
    record = register_one(kube)
    had = Former(record.pod_cidrs, pods=(record.pod_cidrs[0][7],), stays=True)
    first = objects.block_name(record.pod_cidrs[0])
    pooled.api.objects.delete(POD_BLOCKS, first)
    blocks.Blocks(kube.client).claim(record.pod_cidrs[0], NODE_TWO, uid="u")
    before = pooled.claims()

    with pytest.raises(PlaceLost, match="but its pods have addresses of"):
        register_with(kube, had)

    assert kube.nodes() == (record,)
    assert pooled.claims() == before


def test_a_block_that_another_node_publishes_is_not_claimed_again(
    pooled: Pooled, kube: KubeStore
) -> None:
    register_one(kube)
    taken = register_two(kube).pod_cidrs[0]
    pooled.api.objects.delete(POD_BLOCKS, objects.block_name(taken))

    register_with(kube, Former(blocks=(taken,)))

    assert taken not in pooled.claims()


def test_pods_keep_their_gateway_if_the_record_has_another_first_block(kube: KubeStore) -> None:
    register_one(kube)
    pooling_of(kube).grow(NODE_ONE, 4)
    record = record_of(kube, NODE_ONE)
    pod_cidrs = (record.blocks[0], record.pod_cidrs[1])

    again = register_with(kube, Former(pod_cidrs, (record.pod_cidrs[0],), stays=True))

    assert (again.pod_cidrs, again.blocks) == (pod_cidrs, (record.pod_cidrs[0],))


def test_what_is_no_block_in_a_record_is_left_out(pooled: Pooled, kube: KubeStore) -> None:
    """Somebody wrote it there."""
    record = register_one(kube)
    document = pooled.api.objects.get(NODE_NETWORKS, NODE_ONE)
    assert document is not None
    document["spec"]["blocks"] = ["10.244.1.0/25", "192.168.0.0/24"]
    pooled.api.objects.put(NODE_NETWORKS, NODE_ONE, document)

    assert pooling_of(kube).published(NODE_ONE) == ()
    assert register_one(kube) == record


# What people see


def test_a_census_counts_claims_and_names_silent_nodes(pooled: Pooled, kube: KubeStore) -> None:
    clock = Clock()
    kube = replace(kube, clock=clock)
    pooled.api.objects.clock = pooled.api.clock = clock
    nodes = Nodes(pooled.api)
    tiny(pooled)
    pooled.pool("closed", "10.244.64.0/18", disabled=True)
    clock.now += 60
    pooled.pool("wrong", "10.244.8.0/24")
    register_one(kube), register_two(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    nodes.renew(NODE_ONE)
    nodes.silence(NODE_TWO)

    found = {one.name: one for one in pooling_of(kube).census()}

    assert found["tiny"] == Census("tiny", ip_network(TINY4), "in use", 2, 2, (NODE_TWO,))
    assert found["six"] == Census("six", ip_network(WHOLE6), "in use", 256, 2, (NODE_TWO,))
    assert found["closed"] == Census("closed", ip_network("10.244.64.0/18"), "disabled", 64)
    assert found["wrong"].cidr is None
    assert found["wrong"].state.startswith("set aside: its CIDR 10.244.8.0/24 overlaps")


@pytest.mark.parametrize("name", ["", "x", "10-244-3-0", "10-244-3-1-24", "10-244-3-0-024",
                                  "fd00-10-244---64", "300-1-1-1-24"])  # fmt: skip
def test_a_claim_that_is_named_after_nothing_is_not_counted(name: str) -> None:
    assert objects.named_network(name) is None


@pytest.mark.parametrize("cidr", ["10.244.3.0/24", "fd00:10:244:7::/64", "10.215.0.33/32"])
def test_a_claim_is_named_after_its_network(cidr: str) -> None:
    assert objects.named_network(objects.block_name(ip_network(cidr))) == ip_network(cidr)


# Whatever happens


NODES_HERE = 2


class Crash(Exception):
    """The process is killed."""


class Agents:
    """Some nodes in two pools that are too small for them, and all that may happen to them."""

    def __init__(self, api: Api) -> None:
        self.pooled = Pooled(api)
        self.pooled.cluster()
        self.pooled.pool("four", "10.244.0.0/21")
        self.pooled.pool("six", "fd00:10:244::/61")
        self.clock = Clock()
        api.objects.clock = api.clock = self.clock
        api.make_node = lambda _: None
        self.store: KubeStore
        self.had: dict[str, Former] = {}
        """What each host's own record says: as it registered last."""

    def step(self, node: int, what: str, calls: int) -> None:
        """One thing, during which the process is killed after so many calls."""
        name, vtep = f"node-{node}", ip_address(f"192.0.2.{node + 1}")
        self.clock.now += 400.0
        store, block_registry = self.store, pooling_of(self.store)
        record = next((one for one in store.nodes() if one.name == name), None)
        left = count(calls, -1)
        call = Client.call

        def counted(client: Client, *arguments: object, **options: object) -> object:
            if next(left) == 0:
                raise Crash
            return call(client, *arguments, **options)  # type: ignore[arg-type]

        Client.call = counted  # type: ignore[method-assign,assignment]
        try:
            with suppress(Crash, PycniError):
                match what:
                    case "register":
                        had = self.had.get(name, Former())
                        made = store.register(name, vtep, identity=name, had=had)
                        self.had[name] = Former(made.pod_cidrs, made.blocks)
                    case "grow":
                        block_registry.grow(name, 4 + 2 * (calls % 2))
                    case "shrink" if record is not None and record.blocks:
                        block_registry.unpublish(name, record.blocks[0])
                        block_registry.release(name, record.blocks[0])
                    case "tidy":
                        block_registry.tidy(name, kept=[])
        finally:
            Client.call = call  # type: ignore[method-assign]
        if what == "anew":
            self.pooled.node(name)
        if what == "collect":
            self.pooled.collect_garbage()

    def check(self) -> None:
        """No block is published by two nodes."""
        records = self.store.nodes()
        published = [cidr for record in records for cidr in record.networks]
        assert len(published) == len(set(published))
        assert self.store.listing().rejected == {}

    def settle(self) -> None:
        """All run for a while: what is claimed is published, and the other way round."""
        self.clock.now += 2 * blocks.YOUNG
        self.pooled.collect_garbage()
        for node in range(NODES_HERE):
            self.step(node, "register", 1000)
            self.step(node, "tidy", 1000)
        published = {cidr: record.name for record in self.store.nodes()
                     for cidr in record.networks}  # fmt: skip
        assert self.pooled.claims() == published


STEPS = st.tuples(
    st.integers(0, NODES_HERE - 1),
    st.sampled_from(["register", "grow", "grow", "shrink", "tidy", "anew", "collect"]),
    st.integers(1, 14),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=6, max_size=16))
def test_no_block_has_two_nodes_and_none_is_lost_whoever_is_killed_when(
    steps: list[tuple[int, str, int]],
) -> None:
    with serving() as api:
        agents = Agents(api)
        for node in range(NODES_HERE):
            agents.pooled.node(f"node-{node}")
            Nodes(api).silence(f"node-{node}")
        agents.store = KubeStore(Client(Access((("127.0.0.1", api.port),), tls=False)), CLUSTER,
                                 agents.clock, pooled=True)  # fmt: skip
        for step in steps:
            agents.step(*step)
            agents.check()
        agents.settle()
        own._owns.clear()
