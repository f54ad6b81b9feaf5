# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes says what the Kubernetes store needs, and no more."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pycni.settings import Settings
from pycni.stores import NodeRecord
from pycni.stores.kube import objects
from pycni.stores.places import parameters
from pycni.stores.records import (
    ACCEPTS_KNOWN,
    ADDRESSES_MAX,
    BLOCKS_MAX,
    EXTRA_MAX,
    read,
)
from unit.stores.kube_api import BGP_PEERS, CLUSTER_NETWORKS, IP_POOLS, NODE_NETWORKS, POD_BLOCKS
from unit.stores.kube_schemas import documents, problem, schemas
from unit.stores.stores_in_tests import CLUSTER, ELSEWHERE

LONGEST6 = ip_address("2001:db8:1111:2222:3333:4444:5555:6666")
RECORD = NodeRecord(
    name="node-one",
    node_id=2**32 - 1,
    vtep=LONGEST6,
    pod_cidrs=(ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
    extra=tuple(ip_network(LONGEST6 + 1 + number) for number in range(EXTRA_MAX)),
    addresses=tuple(LONGEST6 - number for number in range(ADDRESSES_MAX)),
    blocks=tuple(ip_network((f"10.244.{number}.0", 24)) for number in range(1, BLOCKS_MAX + 1)),
    accepts=ACCEPTS_KNOWN,
)


def written(record: NodeRecord) -> dict[str, Any]:
    return objects.node_network(record, identity="a" * 32, instance="b" * 16, uid="u")


def test_the_largest_record_fits_the_schema_and_is_read_as_it_was() -> None:
    document = written(RECORD)

    assert problem(NODE_NETWORKS, document) == ""
    assert read("node-one", objects.raw(document), CLUSTER).record == RECORD


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"vtep": 7}, "$.spec.vtep is no string"),
        ({"nodeID": 0}, "$.spec.nodeID is 0"),
        ({"other": 1}, "$.spec.other is not in the schema"),
        ({"podCIDRs": []}, "$.spec.podCIDRs has 0 items"),
        ({"machine": "a" * 129}, "$.spec.machine has 129 length"),
    ],
)
def test_a_schema_refuses_what_is_wrong(change: dict[str, object], found: str) -> None:
    document = written(RECORD)
    document["spec"] |= change

    assert problem(NODE_NETWORKS, document) == found


def test_claims_and_parameters_fit_their_schemas() -> None:
    assert problem(POD_BLOCKS, objects.pod_block(ELSEWHERE, "node-one", "u")) == ""
    assert problem(CLUSTER_NETWORKS, objects.cluster_network(CLUSTER)) == ""
    assert set(schemas()) == {NODE_NETWORKS, POD_BLOCKS, CLUSTER_NETWORKS, IP_POOLS, BGP_PEERS}


def test_what_is_written_of_a_cluster_is_read_as_its_parameters() -> None:
    for cluster in (CLUSTER, replace(CLUSTER, cidrs=CLUSTER.cidrs[:1])):
        assert objects.read_parameters(objects.cluster_network(cluster)) == parameters(cluster)


def test_the_cluster_network_of_the_manifest_has_the_default_settings() -> None:
    (document,) = documents("cluster-network.yaml")

    assert document == objects.cluster_network(Settings(node_name="a").cluster)


def test_lists_and_texts_are_bounded_as_the_estimate_of_cels_cost_demands() -> None:
    def unbounded(schema: dict[str, Any], where: str) -> list[str]:
        if where in ("$.metadata", "$.kind", "$.apiVersion"):
            return []
        bound = {"array": "maxItems", "string": "maxLength"}.get(schema["type"])
        found = [where] if bound and bound not in schema else []
        for name, part in schema.get("properties", {}).items():
            found += unbounded(part, f"{where}.{name}")
        if "items" in schema:
            found += unbounded(schema["items"], f"{where}[]")
        return found

    assert [one for schema in schemas().values() for one in unbounded(schema, "$")] == []


def test_agents_may_neither_list_nodes_nor_change_them() -> None:
    rules = [rule for one in documents("rbac.yaml") for rule in one.get("rules", ())]
    verbs = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}

    assert verbs == {
        "nodes": {"get"},
        "services": {"list", "watch"},
        "endpointslices": {"list", "watch"},
        "clusternetworks": {"get"},
        "ippools": {"list"},
        "bgppeers": {"list", "watch"},
        "nodenetworks": {"get", "list", "watch", "create", "patch", "delete"},
        "podblocks": {"get", "list", "create", "delete"},
        "leases": {"get", "list"},
    }


def test_the_policy_is_about_the_agents_and_all_that_they_write() -> None:
    policy, binding, *_ = documents("admission.yaml")
    (account,) = [one for one in documents("rbac.yaml") if one["kind"] == "ServiceAccount"]
    head = account["metadata"]

    (condition,) = policy["spec"]["matchConditions"]
    user = f"system:serviceaccount:{head['namespace']}:{head['name']}"
    assert condition["expression"] == f"request.userInfo.username == '{user}'"
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}
    assert set(rule["resources"]) == {"nodenetworks", "podblocks"}
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert policy["spec"]["failurePolicy"] == "Fail"
