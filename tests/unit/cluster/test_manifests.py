# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster import manifests
from cluster.images import AGNHOST, COREDNS
from cluster.layout import DNS_SERVICE

Json = dict[str, Any]

OBJECTS = [
    *manifests.dns(),
    *manifests.web(replicas=4),
    manifests.namespace("somewhere"),
    manifests.server("a-node1", "node1", host_port=31500),
    manifests.server("b-node1", "node1"),
    manifests.probed("probed-node1", "node1"),
    manifests.speaker("speaker-node1", "node1", "words"),
]


def pod_specs() -> list[Json]:
    specs = []
    for made in OBJECTS:
        if made["kind"] == "Pod":
            specs.append(made["spec"])
        elif made["kind"] == "Deployment":
            specs.append(made["spec"]["template"]["spec"])
    return specs


@pytest.mark.parametrize("made", OBJECTS, ids=lambda made: f"{made['kind']}")
def test_every_object_says_what_it_is(made: Json) -> None:
    assert made["apiVersion"]
    assert made["metadata"]["name"]
    json.dumps(made)


def test_no_registry_is_asked_for_an_image() -> None:
    containers = [container for spec in pod_specs() for container in spec["containers"]]

    assert {container["image"] for container in containers} == {AGNHOST, COREDNS}
    assert {container["imagePullPolicy"] for container in containers} == {"Never"}


def test_a_deployment_has_the_pods_that_it_selects() -> None:
    for made in OBJECTS:
        if made["kind"] == "Deployment":
            labels = made["spec"]["template"]["metadata"]["labels"]
            assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_dns_has_the_address_that_kubelets_give_pods() -> None:
    (service,) = (made for made in manifests.dns() if made["kind"] == "Service")

    assert service["spec"]["clusterIP"] == DNS_SERVICE
    assert {port["protocol"] for port in service["spec"]["ports"]} == {"TCP", "UDP"}


def test_a_pod_that_speaks_needs_no_arguments_of_agnhost() -> None:
    (container,) = manifests.speaker("one", "node1", "words")["spec"]["containers"]

    assert "args" not in container
    assert "words" in container["command"][-1]


def test_pods_of_a_rolled_deployment_serve_until_all_know_that_they_end() -> None:
    deployment, service = manifests.web(replicas=4)

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--delay-shutdown=5" in container["args"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert service["spec"]["ipFamilyPolicy"] == "RequireDualStack"


def test_a_server_has_a_host_port_only_if_it_is_told() -> None:
    for host_port, ports in ((31500, {"containerPort": 8080, "hostPort": 31500}),
                             (None, {"containerPort": 8080})):  # fmt: skip
        (container,) = manifests.server("one", "node1", host_port=host_port)["spec"]["containers"]

        assert container["ports"] == [ports]
