# SPDX-License-Identifier: Apache-2.0
"""Registration in the Kubernetes store while others write: nothing that they wrote is lost."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.errors import FileError, PlaceLost, StoreError, TryAgain
from pycni.stores import Former, Put, Rejected, Synced, open_store
from pycni.stores.kube import KubeStore, objects, own
from pycni.stores.kube.access import Access
from pycni.stores.kube.client import Client
from unit.stores.kube_api import CLUSTER_NETWORKS, NODE_NETWORKS, NODES, POD_BLOCKS, Api, kubeconfig
from unit.stores.kube_nodes import Nodes
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    MACHINE_ONE,
    MACHINE_TWO,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    VTEP_TWO,
    Clock,
    register_one,
    register_two,
    watch,
)

pytestmark = pytest.mark.usefixtures("impatience")

NODES_CIDR = ip_network("10.244.7.0/24")
SECRET = "eyJhbGciOi"


def block_owner(api: Api) -> str:
    (block,) = api.objects.list(POD_BLOCKS)
    return objects.owner_uid(block)


def make_anew(api: Api, name: str) -> str:
    """The Node goes and comes again with its pod CIDRs; returns its UID."""
    node = api.objects.get(NODES, name)
    assert node is not None
    api.objects.delete(NODES, name)
    Nodes(api).put(name, *node["spec"]["podCIDRs"])
    again = api.objects.get(NODES, name)
    assert again is not None
    return str(again["metadata"]["uid"])


def writes(api: Api, since: int) -> int:
    """Events of NodeNetworks after a version."""
    return len([one for one in api.objects.history
                if one.version > since and one.path == NODE_NETWORKS])  # fmt: skip


def test_an_address_that_is_published_while_the_node_registers_is_not_lost(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    apply, calls = Client.apply, []

    def late(self: Client, path: str, document: dict[str, object]) -> bool:
        calls.append(path)
        if len(calls) == 1:
            assert kube.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
        return apply(self, path, document)

    monkeypatch.setattr(Client, "apply", late)
    record = register_one(kube)

    assert record.extra == kube.nodes()[0].extra == (ELSEWHERE,)


def lists(api: Api) -> int:
    """How often the NodeNetworks were listed."""
    return len([one for one in api.asked("GET", f"{NODE_NETWORKS}?") if "limit" in one])


def test_a_registration_right_after_a_list_reads_no_second_one(api: Api, kube: KubeStore) -> None:
    register_two(kube)
    before = lists(api)

    assert [one.name for one in kube.nodes()] == [NODE_TWO]
    register_one(kube)
    assert lists(api) == before + 1

    register_one(kube)
    assert lists(api) == before + 2


def test_what_an_address_was_published_for_since_the_list_is_not_lost(kube: KubeStore) -> None:
    register_one(kube)
    kube.nodes()
    assert kube.publish(NODE_ONE, ELSEWHERE) == NODE_ONE

    assert register_one(kube).extra == (ELSEWHERE,)


def test_a_record_that_was_removed_since_the_list_gets_no_addresses_back(kube: KubeStore) -> None:
    register_one(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    kube.nodes()
    kube.remove(NODE_ONE)

    assert register_one(kube).extra == ()


def test_a_node_whose_object_is_never_still_is_not_said_to_be_registered(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    monkeypatch.setattr(Client, "apply", lambda *_: False)

    with pytest.raises(TryAgain, match="changes all the time"):
        register_one(kube)


def test_a_record_that_is_removed_while_an_address_is_published_does_not_come_back(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    apply = Client.apply

    def late(self: Client, path: str, document: dict[str, object]) -> bool:
        kube.remove(NODE_ONE)
        return apply(self, path, document)

    monkeypatch.setattr(Client, "apply", late)
    with pytest.raises(StoreError, match="not registered"):
        kube.publish(NODE_ONE, ELSEWHERE)

    assert kube.nodes() == ()


def test_claims_of_a_node_that_was_made_anew_are_made_anew_for_it(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    uid = make_anew(api, NODE_ONE)
    assert block_owner(api) != uid

    register_one(kube)

    assert block_owner(api) == uid
    assert kube.nodes()[0].extra == (ELSEWHERE,)


def test_an_agent_whose_node_was_made_anew_claims_its_addresses_again(
    api: Api, kube: KubeStore
) -> None:
    """The garbage collector took the record and the claims."""
    register_one(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    kube.heartbeat(NODE_ONE)
    uid = make_anew(api, NODE_ONE)
    api.objects.delete(POD_BLOCKS, objects.block_name(ELSEWHERE))
    api.objects.delete(NODE_NETWORKS, NODE_ONE)
    own.doubt(kube.client.where, [NODE_ONE])

    kube.heartbeat(NODE_ONE)

    assert block_owner(api) == uid
    assert kube.nodes()[0].extra == (ELSEWHERE,)


def test_other_pod_cidrs_of_the_node_are_refused_before_the_others_hear_of_them(
    api: Api, kube: KubeStore
) -> None:
    """They would forget those that the pods live in."""
    record = register_one(kube)
    Nodes(api).put(NODE_ONE, "10.244.7.0/24", "fd00:10:244:7::/64")
    version = api.objects.version

    with pytest.raises(PlaceLost, match=r"gives this node 10\.244\.7\.0/24 .* but its pods"):
        kube.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE,
                      had=Former(record.pod_cidrs, stays=True))  # fmt: skip

    assert kube.nodes() == (record,)
    assert writes(api, version) == 0


def test_a_node_gets_its_place_back_while_its_node_has_the_same_pod_cidrs(
    api: Api, kube: KubeStore
) -> None:
    had = Former(register_one(kube).pod_cidrs)
    api.objects.delete(NODE_NETWORKS, NODE_ONE)
    api.make_node = lambda _: None
    assert kube.keeps(NODE_ONE, had)

    for cidrs in (("10.244.7.0/24", "fd00:10:244:7::/64"), ()):
        Nodes(api).put(NODE_ONE, *cidrs)
        assert not kube.keeps(NODE_ONE, had)

    api.objects.delete(NODES, NODE_ONE)
    assert not kube.keeps(NODE_ONE, had)


@pytest.mark.parametrize(("had", "tries"), [(Former(), 3), (Former((NODES_CIDR,)), 1)])
def test_only_a_machine_that_was_no_node_waits_for_its_node(
    api: Api, kube: KubeStore, had: Former, tries: int
) -> None:
    """Another one tries again later: its pods wait for the lock that a setup holds."""
    api.make_node = lambda _: None

    with pytest.raises(PlaceLost, match=f"has no Node {NODE_ONE}"):
        kube.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, had=had)

    assert len(api.asked("GET", f"{NODES}/")) == tries


def test_an_address_that_another_node_claimed_meanwhile_is_given_up(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube), register_two(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    api.objects.delete(POD_BLOCKS, objects.block_name(ELSEWHERE))
    kube._blocks.claim(ELSEWHERE, NODE_TWO, uid="u")

    assert register_one(kube).extra == ()


def test_an_event_of_the_own_object_is_reason_to_look_at_the_node(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube)
    kube.heartbeat(NODE_ONE)
    uid = make_anew(api, NODE_ONE)
    own.doubt(kube.client.where, [NODE_ONE])

    kube.heartbeat(NODE_ONE)

    network = api.objects.get(NODE_NETWORKS, NODE_ONE)
    assert network is not None
    assert objects.owner_uid(network) == uid


def test_an_object_that_changes_while_it_is_given_to_its_node_is_looked_at_again(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    uid = make_anew(api, NODE_ONE)
    apply, calls = Client.apply, []

    def late(self: Client, path: str, document: dict[str, object]) -> bool:
        calls.append(path)
        if len(calls) == 1:
            self.merge(path, {"metadata": {"labels": {"somebody": "else"}}})
        return apply(self, path, document)

    monkeypatch.setattr(Client, "apply", late)
    kube.heartbeat(NODE_ONE)
    kube.heartbeat(NODE_ONE)

    network = api.objects.get(NODE_NETWORKS, NODE_ONE)
    assert network is not None
    assert objects.owner_uid(network) == uid
    assert network["metadata"]["labels"] == {"somebody": "else"}


def test_a_node_that_was_made_anew_and_has_no_cidr_yet_is_waited_for(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube)
    kube.heartbeat(NODE_ONE)
    api.objects.delete(NODE_NETWORKS, NODE_ONE)
    Nodes(api).put(NODE_ONE)
    own.doubt(kube.client.where, [NODE_ONE])

    with pytest.raises(PlaceLost, match="no pod CIDR yet"):
        kube.heartbeat(NODE_ONE)


def test_two_machines_of_one_name_do_not_write_at_each_heartbeat(api: Api, kube: KubeStore) -> None:
    """All nodes hear of each write, and a write makes the machines look again."""
    kube.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance="a")
    version = api.objects.version

    for _ in range(10):
        assert kube.heartbeat(NODE_ONE, instance="b") is not None
        own.doubt(kube.client.where, [NODE_ONE])

    assert writes(api, version) == 1


def test_a_machine_that_is_refused_again_and_again_leaves_one_note(
    api: Api, kube: KubeStore
) -> None:
    kube.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE, instance="a")
    version = api.objects.version

    for _ in range(3):
        with pytest.raises(StoreError, match="in use by another machine"):
            kube.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO, instance="b")

    assert writes(api, version) == 1


def test_a_clock_that_was_set_back_is_no_reason_not_to_look() -> None:
    known = own.Own(in_doubt=False)
    known.looked(1_000_000.0)

    assert not known.is_due(1_000_001.0)
    assert known.is_due(1_000_000.0 - 3600)


@pytest.mark.parametrize("text", [f"{SECRET}\n{SECRET}", f"{SECRET} x", f"{SECRET}\x00"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_token_that_is_none_is_an_error_that_does_not_show_it(
    api: Api, tmp_path: Path, text: str, in_file: bool
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    shown = {"token_file": file} if in_file else {"token": text}

    with pytest.raises(FileError, match="is none") as caught:
        Client(Access((("127.0.0.1", api.port),), tls=False, **shown)).get("/x")

    assert SECRET not in f"{caught.value.message}{caught.value.details}{caught.value.hint}"


def test_an_agent_that_may_not_make_the_cluster_is_told_that_there_is_none(
    api: Api, tmp_path: Path
) -> None:
    """And not that its rights are too few: it needs no more."""
    api.forbidden = {("POST", CLUSTER_NETWORKS)}

    with pytest.raises(StoreError, match="there is no ClusterNetwork default"):
        open_store(f"kube:{kubeconfig(tmp_path, api)}", CLUSTER)


def test_what_a_newer_version_published_and_this_one_cannot_read_is_left_out() -> None:
    spec: dict[str, object] = {"extra": ["10.215.0.33/32", 7, None, "nonsense", {}]}

    assert objects.networks(spec, "extra") == (ELSEWHERE,)


# VTEPs that are used again


def test_a_new_machine_with_the_address_of_a_dead_one_takes_it(api: Api, kube: KubeStore) -> None:
    """The cloud gives the address away before the Node of the dead machine goes."""
    kube = replace(kube, clock=(clock := Clock()))
    api.objects.clock = api.clock = clock
    one = register_one(kube)
    nodes = Nodes(api)
    nodes.silence(NODE_ONE)
    clock.now += 60.0
    with closing(watch(kube)) as events:
        assert [next(events), next(events)] == [Put(NODE_ONE, one), Synced()]

        two = kube.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

        reason = f"its VTEP {VTEP_ONE} is that of {NODE_TWO}, which is newer"
        assert [next(events), next(events)] == [Rejected(NODE_ONE, reason), Put(NODE_TWO, two)]


def test_the_address_of_a_living_node_is_not_taken(kube: KubeStore) -> None:
    register_one(kube)

    with pytest.raises(StoreError, match=f"already that of node {NODE_ONE}, which is alive"):
        kube.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)


def test_an_older_node_does_not_move_to_the_address_of_a_newer_one(
    api: Api, kube: KubeStore
) -> None:
    """All would take the newer record for the one that counts."""
    kube = replace(kube, clock=(clock := Clock()))
    api.objects.clock = api.clock = clock
    register_one(kube)
    clock.now += 60.0
    register_two(kube)
    Nodes(api).silence(NODE_TWO)

    with pytest.raises(StoreError, match=f"already that of node {NODE_TWO}, which is silent"):
        kube.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)
