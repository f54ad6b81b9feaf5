# SPDX-License-Identifier: Apache-2.0
"""Names and addresses of a cluster."""

from __future__ import annotations

from itertools import chain

import pytest

from cluster import layout
from pycni.errors import PycniError
from pycni.lab.layout import UNDERLAY4, UNDERLAY6
from unit.cluster.clusters import BASE, drawn


def test_a_cluster_has_a_control_plane_its_nodes_and_a_client() -> None:
    cluster = drawn(nodes=3)

    names = [node.name for node in cluster.layout.nodes]
    assert names == ["control", "node1", "node2", "node3", "client"]
    assert [node.name for node in cluster.workers] == names[1:4]
    assert [node.name for node in cluster.machines] == names[:4]


@pytest.mark.parametrize("nodes", [1, layout.NODES_LIMIT])
def test_addresses_and_ports_of_machines_differ(nodes: int) -> None:
    machines = drawn(nodes=nodes).layout.nodes

    found = list(chain.from_iterable(map(layout.addresses, machines)))
    assert len(set(found)) == 2 * (nodes + 2)
    assert not {str(UNDERLAY4.ip), str(UNDERLAY6.ip)} & set(found)
    assert len({machine.port for machine in machines}) == nodes + 2


def test_clusters_side_by_side_share_no_name_and_no_place() -> None:
    one, other = drawn(name="one"), drawn(name="other")

    assert not set(one.layout.namespaces) & set(other.layout.namespaces)
    assert one.directory == BASE / "one"
    assert not {one.cgroup(node) for node in one.workers} & {
        other.cgroup(node) for node in other.workers
    }


def test_every_machine_lies_in_the_clusters_directory() -> None:
    cluster = drawn()

    assert {node.directory.parent for node in cluster.layout.nodes} == {cluster.directory}


@pytest.mark.parametrize("name", ["", "K8s", "1k", "a_b", "-a", "a-", "a" * 25, "../a", "a b"])
def test_a_name_that_kubernetes_or_files_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(PycniError, match="cannot have the name"):
        layout.check(drawn(name=name))


@pytest.mark.parametrize("nodes", [0, -1, layout.NODES_LIMIT + 1])
def test_a_number_of_nodes_that_cannot_be_is_refused(nodes: int) -> None:
    with pytest.raises(PycniError, match="has from 1 to"):
        layout.check(drawn(nodes=nodes))


@pytest.mark.parametrize("name", ["a", "k8s", "a-b", "a" * 24])
def test_other_names_are_taken(name: str) -> None:
    layout.check(drawn(name=name))
