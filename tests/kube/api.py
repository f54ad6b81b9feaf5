# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store against a real API server: `make test-kube`.

Not collected with the other tests: Kubernetes has to be built first, which takes long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from cluster.waiting import until
from kube.control import Control
from kube.people import NODES, PODS, People, send
from pycni.agent import bgp_peers
from pycni.bgp import resources
from pycni.errors import PycniError, StoreError, TryAgain
from pycni.stores import Put, Rejected, Removed, Synced
from pycni.stores.kube import KubeStore, following, kinds, objects, own, parameters
from pycni.stores.kube.client import Client
from pycni.stores.kube.connection import Request
from pycni.stores.kube.following import Phase
from pycni.stores.kube.objects import CLUSTER_NETWORK, IP_POOLS, NODE_NETWORKS, POD_BLOCKS
from pycni.stores.kube.pages import pages
from pycni.stores.kube.service_lists import KINDS, ServiceLists
from unit.stores.kube_schemas import documents
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    MACHINE_ONE,
    MACHINE_TWO,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    VTEP_TWO,
    register_one,
    register_two,
)

WATCH_SECONDS = 60.0
BGP_PEER = {
    "address": "192.0.2.1", "asn": 64512, "nodeSelector": {"rack": "1"}, "bfd": True,
    "passwordKey": "tor", "multihop": 2, "communities": ["64512:1"], "client": True,
}  # fmt: skip
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WHOLE4, WHOLE6 = "10.244.0.0/16", "fd00:10:244::/56"


@pytest.fixture
def one(people: People) -> KubeStore:
    return people.agent(NODE_ONE)


@pytest.fixture
def two(people: People) -> KubeStore:
    return people.agent(NODE_TWO)


def watch(store: KubeStore) -> Generator[Any, None, None]:
    """Yields events until the test ends the generator; gives up after WATCH_SECONDS."""
    stop = threading.Event()
    timer = threading.Timer(WATCH_SECONDS, stop.set)
    timer.start()
    try:
        yield from store.watch(stop)
    finally:
        timer.cancel()


def next_change(events: Iterator[Any]) -> Any:
    return next(event for event in events if event != Synced())


def spec_of(people: People, path: str) -> dict[str, Any]:
    return dict(objects.fields((people.admin.get(path) or {}).get("spec")))


def gone(people: People, path: str) -> bool:
    return people.admin.get(path) is None


# Manifests


def test_the_manifests_may_be_applied_again_and_change_nothing(control: Control) -> None:
    before = control.admin.get(CLUSTER_NETWORK)

    control.install()

    assert control.admin.get(CLUSTER_NETWORK) == before


def test_the_cluster_of_the_manifest_is_that_of_the_defaults(control: Control) -> None:
    KubeStore.open(f"kube:{control.kubeconfig('someone', token=control.token)}", CLUSTER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vtep": "10.0.0"}, "must be an IP address"),
        ({"podCIDRs": ["10.244.0.0"]}, "must be a network"),
        ({"podCIDRs": []}, "should have at least 1 items"),
        ({"nodeID": 0}, "greater than or equal to 1"),
        ({"vtep": None}, "vtep"),
    ],
)
def test_a_schema_refuses_what_is_wrong(
    people: People, change: dict[str, Any], message: str
) -> None:
    spec = {"nodeID": 1, "vtep": "192.0.2.1", "podCIDRs": ["10.244.0.0/24"]} | change
    document = {"kind": "NodeNetwork", "apiVersion": objects.API_VERSION,
                "metadata": {"name": "x"}, "spec": spec}  # fmt: skip

    with pytest.raises(StoreError, match=message):
        send(people.admin, "POST", NODE_NETWORKS, document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": "nobody"}, "it must be an IP address"),
        ({"asn": 0}, "spec.asn"),
        ({"asn": 2**32}, "spec.asn"),
        ({"multihop": 256}, "spec.multihop"),
        ({"communities": ["no"]}, "spec.communities"),
        ({"passwordKey": "../shadow"}, "spec.passwordKey"),
        ({"nodeSelector": {"rack": "x" * 64}}, "spec.nodeSelector"),
    ],
)
def test_a_bgp_peer_that_is_wrong_is_refused(
    people: People, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        bgp_peer(people, BGP_PEER | change)


def test_a_bgp_peer_has_each_field_that_agents_read(people: People) -> None:
    kept = bgp_peer(people, BGP_PEER)
    people.admin.delete(f"{objects.BGP_PEERS}/{objects.name_of(kept)}")

    assert kept["spec"] == BGP_PEER
    assert bgp_peers.read(kept).problem == ""
    assert BGP_PEER.keys() == {*resources.FIELDS, resources.SELECTOR, resources.PASSWORD}


def bgp_peer(people: People, spec: dict[str, Any]) -> dict[str, Any]:
    return send(people.admin, "POST", objects.BGP_PEERS, {
        "kind": "BGPPeer", "apiVersion": objects.API_VERSION, "metadata": {"name": "rack-1"},
        "spec": spec,
    })  # fmt: skip


def test_the_parameters_of_a_cluster_and_a_claim_never_change(people: People) -> None:
    block = objects.pod_block(ELSEWHERE, NODE_ONE, "u")
    people.admin.create(POD_BLOCKS, block)

    with pytest.raises(StoreError, match="a cluster keeps its parameters"):
        send(people.admin, "PATCH", CLUSTER_NETWORK, {"spec": {"vni": 8}})
    with pytest.raises(StoreError, match="a claim is never changed"):
        send(people.admin, "PATCH", f"{POD_BLOCKS}/{objects.block_name(ELSEWHERE)}",
             {"spec": {"node": NODE_TWO}})  # fmt: skip
    second = objects.cluster_network(CLUSTER) | {"metadata": {"name": "b"}}
    with pytest.raises(StoreError, match="its name is default"):
        people.admin.create(objects.CLUSTER_NETWORKS, second)


# Who may do what


def test_agents_need_all_their_rights_and_no_more(
    control: Control, people: People, one: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(one)
    one.publish(NODE_ONE, ELSEWHERE)
    one.withdraw(NODE_ONE, ELSEWHERE)
    one.heartbeat(NODE_ONE, instance="a")
    one.listing()
    with pytest.raises(StoreError, match="in use by another machine"):
        one.register(NODE_ONE, VTEP_TWO, identity=MACHINE_TWO, instance="b")
    monkeypatch.setitem(following._no_stream_until, one.client.access.servers, 1e12)
    with closing(watch(one)) as events:
        next_change(events)
    following._no_stream_until.clear()
    with closing(watch(one)) as events:
        next_change(events)
    KubeStore.open(f"kube:{control.kubeconfig('agent', token=people.token())}", CLUSTER)
    one.remove(NODE_ONE)
    people.pool("four", WHOLE4), people.pool("six", WHOLE6)
    register_one(replace(one, pooled=True))
    look_at_services(one.client)
    look_at_bgp_peers(one.client)

    rules = [rule for part in documents("rbac.yaml") for rule in part.get("rules", ())]
    given = {(verb, what) for rule in rules for what in rule["resources"] for verb in rule["verbs"]}
    # server-side apply of an object that is not there asks for the verb create as well
    assert control.audited() | {("create", "nodenetworks")} == given


RIGHTS = [
    (verb, resource)
    for rule in documents("rbac.yaml")[1]["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
]


@pytest.mark.parametrize(("verb", "resource"), RIGHTS)
def test_a_right_that_is_missing_is_named(people: People, verb: str, resource: str) -> None:
    whole, lacking = documents("rbac.yaml")[1], documents("rbac.yaml")[1]
    assert whole["kind"] == "ClusterRole"
    for rule in lacking["rules"]:
        if resource in rule["resources"]:
            rule["verbs"].remove(verb)
    lacking["rules"] = [rule for rule in lacking["rules"] if rule["verbs"]]
    people.pool("four", WHOLE4), people.pool("six", WHOLE6)
    agent = replace(people.agent(NODE_ONE), pooled=resource == "ippools")
    said: list[str] = []

    def is_named() -> bool:
        said.append(whole_life(agent))
        return f'cannot {verb} resource "{resource}"' in said[-1] and "rbac.yaml" in said[-1]

    try:
        send(people.admin, "PUT", f"{ROLES}/pycni", lacking)
        until(is_named, f"the right to {verb} {resource} is missed", 30.0)
    finally:
        send(people.admin, "PUT", f"{ROLES}/pycni", whole)
        until(lambda: not whole_life(agent), "all rights are there again", 30.0)


def whole_life(agent: KubeStore) -> str:
    """What an agent does from its start to its teardown; the first error, and what to do."""
    try:
        parameters.check(agent.client, CLUSTER, create=False)
        register_one(agent)
        agent.publish(NODE_ONE, ELSEWHERE)
        agent.withdraw(NODE_ONE, ELSEWHERE)
        agent.listing()
        with closing(watch(agent)) as events:
            next_change(events)
        look_at_services(agent.client)
        look_at_bgp_peers(agent.client)
        agent.remove(NODE_ONE)
    except (StoreError, TryAgain) as error:
        return f"{error.message}; {error.hint}"
    return ""


def look_at_services(client: Client) -> None:
    """As `pycni services` does, once, and as the agent does, until it has all."""
    list(ServiceLists(client).documents())
    look_at(client, KINDS)


def look_at_bgp_peers(client: Client) -> None:
    """As the agent does, by a watch and by a list."""
    look_at(client, {objects.BGP_PEERS: "BGPPeer"})
    list(pages(client, objects.BGP_PEERS))


def look_at(client: Client, followed: Mapping[str, str]) -> None:
    """Until all of these kinds are listed."""
    missing, stop = set(followed.values()), threading.Event()
    for news in kinds.follow(client, followed, stop, lambda kind, _document: kind):
        if news is not None and news[1].phase is Phase.END:
            missing.discard(news[0])
        if not missing:
            stop.set()


def test_an_agent_writes_the_objects_of_its_own_node_only(
    people: People, one: KubeStore, two: KubeStore
) -> None:
    register_one(one), register_two(two)
    one.publish(NODE_ONE, ELSEWHERE)
    block = objects.block_name(ELSEWHERE)
    document = people.admin.get(f"{NODE_NETWORKS}/{NODE_ONE}") or {}
    stolen = objects.with_spec(document, objects.fields(document["spec"]) | {"vtep": "192.0.2.9"})

    for attempt in (
        lambda: two.register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE),
        lambda: two.client.apply(f"{NODE_NETWORKS}/{NODE_ONE}", stolen),
        lambda: two.client.merge(
            f"{NODE_NETWORKS}/{NODE_ONE}", {"metadata": {"ownerReferences": None}}
        ),
        lambda: two.client.delete(f"{NODE_NETWORKS}/{NODE_ONE}"),
        lambda: two.client.delete(f"{POD_BLOCKS}/{block}"),
        lambda: two.client.create(
            POD_BLOCKS, objects.pod_block(ip_network("10.215.0.34/32"), NODE_ONE, "u")
        ),
        lambda: two.client.create(
            NODE_NETWORKS,
            {"kind": "NodeNetwork", "apiVersion": objects.API_VERSION, "metadata": {"name": "new"},
             "spec": {"nodeID": 9, "vtep": "192.0.2.9", "podCIDRs": ["10.244.9.0/24"]}},
        ),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="an agent writes the objects of its own node only"):
            attempt()

    assert {node.name: node.vtep for node in one.nodes()} == {NODE_ONE: VTEP_ONE,
                                                             NODE_TWO: VTEP_TWO}  # fmt: skip


def test_an_object_of_an_agent_belongs_to_its_node(one: KubeStore) -> None:
    for references in ({}, {"ownerReferences": [objects.owner(NODE_TWO, "u")]}):
        document: dict[str, object] = {
            "kind": "NodeNetwork",
            "apiVersion": objects.API_VERSION,
            "metadata": {"name": NODE_ONE} | references,
            "spec": {"nodeID": 1, "vtep": "192.0.2.1", "podCIDRs": ["10.244.0.0/24"]},
        }
        with pytest.raises(StoreError, match="the owner must be the agent's own Node"):
            one.client.create(NODE_NETWORKS, document)


def test_a_token_that_is_bound_to_no_pod_writes_nothing(people: People) -> None:
    people.node(NODE_ONE)
    store = people.store(people.token())

    with pytest.raises(StoreError, match="the token is not bound to a pod on a node"):
        register_one(store)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", NODES),
        ("GET", f"{NODES}?watch=1"),
        ("DELETE", NODE_NETWORKS),
        ("DELETE", POD_BLOCKS),
        ("DELETE", CLUSTER_NETWORK),
        ("POST", IP_POOLS),
        ("DELETE", f"{IP_POOLS}/four"),
        ("GET", PODS),
        ("GET", "/api/v1/secrets"),
        ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/pycni/token"),
    ],
)
def test_an_agent_may_not(one: KubeStore, method: str, path: str) -> None:
    with pytest.raises(StoreError, match="forbids"):
        one.client.call(Request(method, path, b"{}" if method == "POST" else None,
                                {"Content-Type": "application/json"}))  # fmt: skip


# Registration


def test_a_node_has_the_cidrs_that_kubernetes_gave_it(people: People, one: KubeStore) -> None:
    record = register_one(one)

    node = people.admin.get(f"{NODES}/{NODE_ONE}") or {}
    assert [str(cidr) for cidr in record.pod_cidrs] == objects.fields(node["spec"])["podCIDRs"]
    assert one.nodes() == (record,)
    assert register_one(one) == record


def test_registering_again_changes_nothing_at_all(people: People, one: KubeStore) -> None:
    register_one(one)
    before = people.admin.get(f"{NODE_NETWORKS}/{NODE_ONE}")

    register_one(one)

    assert people.admin.get(f"{NODE_NETWORKS}/{NODE_ONE}") == before


def test_what_others_wrote_at_an_object_stays(people: People, one: KubeStore) -> None:
    register_one(one)
    send(people.admin, "PATCH", f"{NODE_NETWORKS}/{NODE_ONE}", {"metadata": {"labels": {"a": "b"}}})

    one.register(NODE_ONE, VTEP_TWO, identity=MACHINE_ONE)
    one.publish(NODE_ONE, ELSEWHERE)

    head = objects.metadata(people.admin.get(f"{NODE_NETWORKS}/{NODE_ONE}") or {})
    assert head["labels"] == {"a": "b"}
    assert one.nodes()[0].vtep == VTEP_TWO
    assert one.nodes()[0].extra == (ELSEWHERE,)


def test_a_change_meanwhile_is_noticed_also_when_the_object_went(
    people: People, one: KubeStore
) -> None:
    register_one(one)
    path = f"{NODE_NETWORKS}/{NODE_ONE}"
    former = people.admin.get(path) or {}
    document = objects.with_spec(former, spec_of(people, path) | {"vtep": "192.0.2.7"})
    send(people.admin, "PATCH", path, {"metadata": {"labels": {"a": "b"}}})

    assert not one.client.apply(path, document)
    one.remove(NODE_ONE)
    assert not one.client.apply(path, document)
    assert one.nodes() == ()


def test_threads_that_publish_at_once_lose_nothing(one: KubeStore) -> None:
    register_one(one)
    wanted = [ip_network(f"10.215.0.{number}/32") for number in range(1, 5)]
    done: list[str] = []

    def publish(number: int) -> None:
        while True:
            try:
                done.append(one.publish(NODE_ONE, wanted[number]))
                return
            except TryAgain:
                continue

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    register_one(one)
    for thread in threads:
        thread.join()

    assert done == [NODE_ONE] * 4
    assert set(one.nodes()[0].extra) == set(wanted)


def test_an_address_is_published_by_one_node(
    people: People, one: KubeStore, two: KubeStore
) -> None:
    register_one(one), register_two(two)
    assert one.publish(NODE_ONE, ELSEWHERE) == NODE_ONE
    assert two._blocks.claim(ELSEWHERE, NODE_TWO, uid="u") == NODE_ONE
    assert two.publish(NODE_TWO, ELSEWHERE) == NODE_ONE

    one.withdraw(NODE_ONE, ELSEWHERE)

    assert two.publish(NODE_TWO, ELSEWHERE) == NODE_TWO
    block = people.admin.get(f"{POD_BLOCKS}/{objects.block_name(ELSEWHERE)}")
    assert block is not None
    assert objects.fields(block["spec"])["node"] == NODE_TWO


def test_claims_are_listed_by_their_node(one: KubeStore, two: KubeStore) -> None:
    register_one(one), register_two(two)
    one.publish(NODE_ONE, ELSEWHERE)
    two.publish(NODE_TWO, ip_network("10.215.0.34/32"))

    found = one.client.get(f"{POD_BLOCKS}?fieldSelector=spec.node%3D{NODE_ONE}") or {}

    assert [objects.name_of(block) for block in found["items"]] == [objects.block_name(ELSEWHERE)]  # type: ignore[attr-defined]


# What others wrote


def test_what_somebody_wrote_into_the_own_object_is_told_and_written_anew(
    people: People, one: KubeStore, two: KubeStore
) -> None:
    record = register_one(one)
    path = f"{NODE_NETWORKS}/{NODE_ONE}"
    with closing(watch(two)) as events:
        assert next_change(events) == Put(NODE_ONE, record)
        send(people.admin, "PATCH", path, {"spec": {"vtep": "192.0.2.77", "nodeID": 77}})
        assert next_change(events).value.vtep == ip_address("192.0.2.77")

        assert register_one(one).vtep == record.vtep
        assert next_change(events).value.vtep == record.vtep
    assert spec_of(people, path)["vtep"] == str(record.vtep)


def test_records_of_a_newer_version_are_read_as_far_as_they_are_known(
    people: People, one: KubeStore, two: KubeStore
) -> None:
    """Its kinds have more fields; the agents of before run until their nodes are upgraded."""
    ours, newer = (
        next(crd for crd in documents("crds.yaml") if "nodenetworks" in crd["metadata"]["name"])
        for _ in range(2)
    )
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["future"] = {"type": "string"}
    path = f"{NODE_NETWORKS}/{NODE_TWO}"
    register_one(one)
    record = register_two(two)

    def has_future() -> bool:
        send(people.admin, "PATCH", path, {"spec": {"future": "new"}})
        return spec_of(people, path).get("future") == "new"

    try:
        send(people.admin, "PATCH", f"{CRDS}/{newer['metadata']['name']}", {"spec": newer["spec"]})
        until(has_future, "the newer kind is there", 30.0)

        assert record in one.nodes()
        assert register_two(two) == record
        assert spec_of(people, path)["future"] == "new", "what is not ours stays"
    finally:
        send(people.admin, "PATCH", f"{CRDS}/{ours['metadata']['name']}", {"spec": ours["spec"]})


# Nodes that go


def test_what_a_node_leaves_is_collected(people: People, one: KubeStore) -> None:
    register_one(one)
    one.publish(NODE_ONE, ELSEWHERE)

    people.admin.delete(f"{NODES}/{NODE_ONE}")

    until(lambda: gone(people, f"{NODE_NETWORKS}/{NODE_ONE}"), "the record goes", 30.0)
    block = f"{POD_BLOCKS}/{objects.block_name(ELSEWHERE)}"
    until(lambda: gone(people, block), "the claim goes", 30.0)


def test_a_node_that_is_made_anew_under_its_name_keeps_its_record_and_claims(
    people: People, one: KubeStore
) -> None:
    register_one(one)
    one.publish(NODE_ONE, ELSEWHERE)
    one.heartbeat(NODE_ONE, instance="a")
    cidrs = people.node(NODE_ONE)["spec"]["podCIDRs"]
    people.admin.delete(f"{NODES}/{NODE_ONE}")
    spec = {"podCIDR": cidrs[0], "podCIDRs": cidrs}
    node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE_ONE}, "spec": spec}
    send(people.admin, "POST", NODES, node)
    uid = people.node(NODE_ONE)["metadata"]["uid"]
    # the pod that had the token goes with its Node
    agent = people.store(people.token(people.pod(NODE_ONE)))

    def is_settled() -> bool:
        own.doubt(agent.client.where, [NODE_ONE])
        agent.heartbeat(NODE_ONE, instance="a")
        network = people.admin.get(f"{NODE_NETWORKS}/{NODE_ONE}") or {}
        block = people.admin.get(f"{POD_BLOCKS}/{objects.block_name(ELSEWHERE)}") or {}
        return {objects.owner_uid(network), objects.owner_uid(block)} == {uid}

    until(is_settled, "the record and the claim belong to the new Node", 30.0)
    time.sleep(5.0)  # the garbage collector has seen the former Node go
    assert is_settled()
    assert agent.nodes()[0].extra == (ELSEWHERE,)


def test_a_new_machine_takes_the_address_of_a_dead_one(
    people: People, one: KubeStore, two: KubeStore
) -> None:
    record = register_one(one)
    people.renew(NODE_ONE, age=60.0)
    time.sleep(1.1)  # creation has whole seconds
    with closing(watch(two)) as events:
        assert next_change(events) == Put(NODE_ONE, record)

        new = two.register(NODE_TWO, VTEP_ONE, identity=MACHINE_TWO)

        reason = f"its VTEP {VTEP_ONE} is that of {NODE_TWO}, which is newer"
        assert [next_change(events), next_change(events)] == [Rejected(NODE_ONE, reason),
                                                             Put(NODE_TWO, new)]  # fmt: skip


# Watches


def test_a_list_comes_as_a_stream_and_then_each_change(
    one: KubeStore, two: KubeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record = register_one(one)
    with closing(watch(one)) as events:
        assert [next(events), next(events)] == [Put(NODE_ONE, record), Synced()]
        other = register_two(two)
        assert next_change(events) == Put(NODE_TWO, other)
        moved = two.register(NODE_TWO, ip_address("192.0.2.9"), identity=MACHINE_TWO)
        assert next_change(events) == Put(NODE_TWO, moved)
        two.remove(NODE_TWO)
        assert next_change(events) == Removed(NODE_TWO)
    assert "streams no lists" not in caplog.text


def test_a_list_in_pages_says_the_same(
    one: KubeStore, two: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(following._no_stream_until, one.client.access.servers, 1e12)
    monkeypatch.setattr("pycni.stores.kube.pages.PAGE", 1)
    record, other = register_one(one), register_two(two)
    with closing(watch(one)) as events:
        puts = [Put(NODE_ONE, record), Put(NODE_TWO, other)]
        assert [next(events), next(events), next(events)] == [*puts, Synced()]
        one.remove(NODE_ONE)
        assert next_change(events) == Removed(NODE_ONE)


def test_a_watch_that_ends_goes_on(one: KubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WATCH_SECONDS", (1, 1))
    with closing(watch(one)) as events:
        assert next(events) == Synced()
        threading.Timer(3.5, register_one, (one,)).start()
        assert isinstance(next_change(events), Put)


def test_the_api_server_may_be_killed_and_come_back(
    control: Control, one: KubeStore, two: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And have forgotten what happened meanwhile: that a record went."""
    monkeypatch.setattr(following, "CAP", 2.0)
    register_one(one), register_two(two)
    with closing(watch(one)) as events:
        assert [type(next(events)) for _ in range(3)] == [Put, Put, Synced]
        control.kill_api()
        with pytest.raises(StoreError, match="does not answer"):
            one.nodes()
        control.delete_behind_the_api(f"/registry/pycni.dev/nodenetworks/{NODE_TWO}")
        control.start_api()

        assert next_change(events) == Removed(NODE_TWO)

        other = register_two(two)
        assert next_change(events) == Put(NODE_TWO, other)


def test_a_version_that_was_compacted_is_listed_anew(
    one: KubeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    register_one(one)
    follower = following.Following(one.client, NODE_NETWORKS, objects.raw)
    follower._version, follower._was_listed = "1", True
    stop = threading.Event()
    threading.Timer(WATCH_SECONDS, stop.set).start()

    batches = follower.batches(stop)
    phases = [next(batches).phase for _ in range(3)]
    stop.set()

    assert phases[0] is following.Phase.BEGIN
    assert following.Phase.END in phases
    assert "the server has forgotten what changed" in caplog.text


# Tokens, and a busy server


def test_a_token_is_replaced_while_the_agent_runs(people: People, tmp_path: Path) -> None:
    people.node(NODE_ONE)
    pods = [people.pod(NODE_ONE), people.pod(NODE_ONE)]
    file = tmp_path / "token"
    file.write_text(people.token(pods[0]))
    store = people.store_by_file(file)
    register_one(store)
    people.control.kubectl("delete", "pod", "-n", "kube-system", pods[0], "--force",
                           "--grace-period=0")  # fmt: skip

    def is_refused() -> bool:
        try:
            store.nodes()
        except StoreError as error:
            return "does not accept our credentials" in error.message
        return False

    until(is_refused, "the token of the pod that went is refused", 60.0)
    file.write_text(people.token(pods[1]))

    assert [node.name for node in store.nodes()] == [NODE_ONE]


BUSY = {
    "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
    "kind": "PriorityLevelConfiguration",
    "metadata": {"name": "nothing"},
    "spec": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "lendablePercent": 0,
                    "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}},
    },
}  # fmt: skip
FLOW = {
    "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
    "kind": "FlowSchema",
    "metadata": {"name": "nothing"},
    "spec": {
        "matchingPrecedence": 2,
        "priorityLevelConfiguration": {"name": "nothing"},
        "rules": [{
            "subjects": [{"kind": "ServiceAccount",
                          "serviceAccount": {"name": "pycni", "namespace": "kube-system"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                               "clusterScope": True, "namespaces": ["*"]}],
        }],
    },
}  # fmt: skip
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"


def rejected(control: Control) -> int:
    """Requests of that priority that the server refused with 429."""
    lines = control.kubectl("get", "--raw=/metrics").stdout.splitlines()
    head = "apiserver_flowcontrol_rejected_requests_total"
    return sum(int(float(line.split()[-1])) for line in lines
               if line.startswith(head) and 'priority_level="nothing"' in line)  # fmt: skip


def test_a_busy_server_is_tried_again(control: Control, people: People, one: KubeStore) -> None:
    """It serves one request of agents at a time, and refuses the others."""
    record = register_one(one)
    send(people.admin, "POST", f"{FLOWS}/prioritylevelconfigurations", BUSY)
    send(people.admin, "POST", f"{FLOWS}/flowschemas", FLOW)
    answers: list[Any] = []

    def ask() -> None:
        answers.extend(one.nodes() for _ in range(10))

    def is_crowded() -> bool:
        """No answer is lost, and some had to be asked for again."""
        answers.clear()
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [(record,)] * 80
        return rejected(control) > 0

    try:
        until(is_crowded, "the server is busy", 60.0)
    finally:
        people.admin.delete(f"{FLOWS}/flowschemas/nothing")
        people.admin.delete(f"{FLOWS}/prioritylevelconfigurations/nothing")


def test_a_server_of_another_name_or_authority_is_refused(control: Control, tmp_path: Path) -> None:
    access = replace(control.access(token=control.token), server_name="another.example")
    with pytest.raises(StoreError, match="certificate is not accepted"):
        Client(access).get(CLUSTER_NETWORK)

    (tmp_path / "ca.pem").write_bytes((control.directory / "api.pem").read_bytes())
    other = replace(control.access(token=control.token), ca_file=tmp_path / "ca.pem")
    with pytest.raises(PycniError):
        Client(other).get(CLUSTER_NETWORK)
