# SPDX-License-Identifier: Apache-2.0
"""Command lines and configurations of the daemons."""

from __future__ import annotations

import pytest

from cluster import commands
from cluster.commands import Command
from cluster.layout import DNS_SERVICE, PODS, addresses
from image import manifests
from pycni.lab.layout import LabNode
from unit.cluster.clusters import PROGRAMS, drawn

CLUSTER = drawn()
NODE_ONE, NODE_TWO = CLUSTER.workers


def options(command: Command) -> dict[str, str]:
    """By name; every option has a value."""
    pairs = [str(word).removeprefix("--").partition("=") for word in command[1:]]
    assert all(separator for _, separator, _ in pairs)
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    "command",
    [
        commands.etcd(PROGRAMS),
        commands.api_server(CLUSTER, PROGRAMS),
        commands.controller_manager(CLUSTER, PROGRAMS),
        commands.scheduler(CLUSTER, PROGRAMS),
        commands.kube_proxy(CLUSTER, PROGRAMS, NODE_ONE),
        commands.kubelet(CLUSTER, PROGRAMS, NODE_ONE),
    ],
    ids=lambda command: command[0].name,
)
def test_no_option_comes_twice(command: Command) -> None:
    assert len(options(command)) == len(command) - 1


def test_kube_proxy_leaves_the_computers_connection_tracking_alone() -> None:
    given = options(commands.kube_proxy(CLUSTER, PROGRAMS, NODE_ONE))

    limits = {value for name, value in given.items() if name.startswith("conntrack-")}
    assert limits == {"0"}
    assert given["oom-score-adj"] == "0"


def test_kube_proxy_knows_its_node_the_pods_and_its_mode() -> None:
    given = options(commands.kube_proxy(drawn(kube_proxy="iptables"), PROGRAMS, NODE_TWO))

    assert (given["proxy-mode"], given["hostname-override"]) == ("iptables", "node2")
    assert given["cluster-cidr"] == PODS


def test_kubelets_of_one_computer_share_no_control_group() -> None:
    groups = {
        commands.kubelet_configuration(cluster, node)["cgroupRoot"]
        for cluster in (CLUSTER, drawn(name="other"))
        for node in cluster.workers
    }

    assert len(groups) == 4


def test_kubelet_runs_where_control_groups_are_of_version_one() -> None:
    assert commands.kubelet_configuration(CLUSTER, NODE_ONE)["failCgroupV1"] is False


def test_kubelet_gives_pods_the_clusters_dns_and_its_node_both_addresses() -> None:
    assert commands.kubelet_configuration(CLUSTER, NODE_ONE)["clusterDNS"] == [DNS_SERVICE]
    given = options(commands.kubelet(CLUSTER, PROGRAMS, NODE_ONE))
    assert given["node-ip"].split(",") == addresses(NODE_ONE)


def test_the_api_server_is_where_kubeconfigs_say() -> None:
    given = options(commands.api_server(CLUSTER, PROGRAMS))

    assert CLUSTER.api == f"https://{given['advertise-address']}:{given['secure-port']}"


def test_pycnis_manifest_has_the_networks_that_nodes_are_given() -> None:
    given = options(commands.controller_manager(CLUSTER, PROGRAMS))

    (network,) = manifests.pieces([manifests.CLUSTER_NETWORK])
    assert given["allocate-node-cidrs"] == "true"
    assert given["cluster-cidr"].split(",") == network["spec"]["cidrs"]
    for family, length in network["spec"]["nodePrefix"].items():
        assert given[f"node-cidr-mask-size-{family}"] == str(length)


def test_pods_of_others_run_on_workers_only() -> None:
    def taints(node: LabNode) -> list[dict[str, str]]:
        found: list[dict[str, str]] = commands.kubelet_configuration(CLUSTER, node)[
            "registerWithTaints"
        ]
        return found

    assert [one["effect"] for one in taints(CLUSTER.control)] == ["NoSchedule"]
    assert taints(NODE_ONE) == []
