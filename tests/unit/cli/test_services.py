# SPDX-License-Identifier: Apache-2.0
"""`pycni services`: what a node makes of objects in files or of the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli
from pycni.cli.invocation import Invocation
from pycni.errors import DecodingError, InvalidParameter, InvalidSettings
from unit.services.objects_made import endpoint, endpoint_slice, service
from unit.stores.kube_api import NODES, SERVICES, SLICES, kubeconfig, serving

HERE, THERE = "node1", "node2"
LOCAL = service(
    "web", type="NodePort", externalTrafficPolicy="Local",
    ports=[{"name": "http", "port": 80, "nodePort": 30080}],
)  # fmt: skip
ENDPOINTS = endpoint_slice(
    endpoint("10.244.0.2", node=HERE, zones=["east"]),
    endpoint("10.244.1.2", node=THERE, zones=["west"]),
    endpoint("10.244.1.3", node=THERE, ready=False, serving=False),
)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], obj=Invocation())


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "pycni.toml"
    file.write_text(f'node_name = "{HERE}"\nstate_dir = "{tmp_path}"\n')
    return file


def write(tmp_path: Path, *documents: dict[str, Any]) -> Path:
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"kind": "List", "items": documents}))
    return file


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    done = call(*arguments, "-o", "json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_each_address_is_a_row(settings: Path, tmp_path: Path) -> None:
    found = rows("--config", settings, "services", "-f", write(tmp_path, LOCAL, ENDPOINTS))

    assert [(one["kind"], one["address"], one["port"]) for one in found] == [
        ("ClusterIP", "10.96.0.10", 80),
        ("NodePort", "node (IPv4)", 30080),
    ]
    assert [(one["policy"], one["endpoints"], one["state"]) for one in found] == [
        ("Cluster", 2, "forwards"),
        ("Local", 1, "forwards"),
    ]


def test_what_is_refused_is_told(settings: Path, tmp_path: Path) -> None:
    file = write(tmp_path, LOCAL, ENDPOINTS, service("empty", clusterIPs=["10.96.0.11"]))

    found = rows("--config", settings, "services", "-f", file, "--node", "node3")
    assert {(one["service"], one["kind"]): one["state"].split(":")[0] for one in found} == {
        ("shop/empty", "ClusterIP"): "rejects",
        ("shop/web", "ClusterIP"): "forwards",
        ("shop/web", "NodePort"): "drops",
    }


def test_the_endpoints_of_one_and_why_not_the_others(settings: Path, tmp_path: Path) -> None:
    file = write(tmp_path, LOCAL, ENDPOINTS)

    found = rows("--config", settings, "services", "shop/web", "-f", file, "--zone", "east")
    assert [(one["address"], one["cluster"], one["local"], one["why_not"]) for one in found] == [
        ("10.244.0.2", True, True, ""),
        ("10.244.1.2", False, False, "by its hints for clients elsewhere"),
        ("10.244.1.3", False, False, "not ready"),
    ]


def test_another_node_sees_other_endpoints(settings: Path, tmp_path: Path) -> None:
    options = ("-f", write(tmp_path, LOCAL, ENDPOINTS), "--node", THERE)

    found = rows("--config", settings, "services", "shop/web", *options)
    assert [(one["node"], one["local"], one["why_not"]) for one in found] == [
        (HERE, False, "on another node"),
        (THERE, True, ""),
        (THERE, False, "not ready"),
    ]


def test_a_machine_that_the_files_do_not_know_is_told(settings: Path, tmp_path: Path) -> None:
    file = write(tmp_path, LOCAL, ENDPOINTS)
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(f'node_name = "laptop"\nstate_dir = "{tmp_path}"\n')

    unknown = call("--config", elsewhere, "services", "-f", file)
    named = call("--config", elsewhere, "services", "-f", file, "--node", "node3")
    known = call("--config", settings, "services", "-f", file)

    assert "this is how laptop sees it" in unknown.stderr
    assert (named.stderr, known.stderr) == ("", "")


def test_people_see_a_table(settings: Path, tmp_path: Path) -> None:
    done = call("--config", settings, "services", "-f", write(tmp_path, LOCAL, ENDPOINTS))

    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split()[:3] == ["SERVICE", "PORT", "NAME"]


def test_a_bad_object_is_told_and_the_others_are_shown(settings: Path, tmp_path: Path) -> None:
    bad = service("bad\x1b[31m", ports=[{"port": 0}])
    file = write(tmp_path, bad, LOCAL, endpoint_slice(endpoint("127.0.0.1")))

    done = call("--config", settings, "services", "-f", file)
    assert done.exit_code == 0
    assert "10.96.0.10" in done.stdout
    assert "not used: Service shop/bad\\x1b[31m: spec.ports.0.port: " in done.stderr
    assert "not used: EndpointSlice shop/web-1 endpoint 0: 127.0.0.1 is " in done.stderr


def test_sctp_to_another_port_is_told(settings: Path, tmp_path: Path) -> None:
    """S-101."""
    port = {"name": "s", "port": 9, "protocol": "SCTP"}
    slices = endpoint_slice(endpoint("10.244.0.2"), ports=[port | {"port": 10}])

    done = call(
        "--config", settings, "services", "-f", write(tmp_path, service(ports=[port]), slices)
    )
    assert "10.96.0.10 9: SCTP with another targetPort" in done.stderr


@pytest.mark.parametrize("name", ["web", "shop/nobody"])
def test_a_service_that_is_not_there_is_an_error(settings: Path, tmp_path: Path, name: str) -> None:
    done = call("--config", settings, "services", name, "-f", write(tmp_path, LOCAL, ENDPOINTS))

    assert isinstance(done.exception, InvalidParameter)
    assert "NAMESPACE/NAME" in done.exception.hint


def test_a_file_that_is_no_yaml_is_an_error(settings: Path, tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text("a: [")

    assert isinstance(call("--config", settings, "services", "-f", file).exception, DecodingError)


def test_a_store_without_kubernetes_has_none(settings: Path) -> None:
    assert isinstance(call("--config", settings, "services").exception, InvalidSettings)


def test_the_clusters_are_listed_with_the_zone_of_the_node(settings: Path, tmp_path: Path) -> None:
    with serving() as api:
        for path, document in ((SERVICES, LOCAL), (SLICES, ENDPOINTS)):
            api.objects.put(path, document["metadata"]["name"], document)
        labels = {"topology.kubernetes.io/zone": "west"}
        api.objects.put(NODES, HERE, {"metadata": {"labels": labels}})
        settings.write_text(settings.read_text() + f'store = "kube:{kubeconfig(tmp_path, api)}"\n')

        (cluster_ip, node_port) = rows("--config", settings, "services")
        assert (cluster_ip["endpoints"], node_port["endpoints"]) == (1, 1)
        found = rows("--config", settings, "services", "shop/web")
    assert [one["cluster"] for one in found] == [False, True, False]


def test_no_service_has_the_address_of_a_pod(settings: Path, tmp_path: Path) -> None:
    with serving() as api:
        stolen = service("thief", externalIPs=["10.244.0.2"])
        api.objects.put(SERVICES, "thief", stolen)
        settings.write_text(settings.read_text() + f'store = "kube:{kubeconfig(tmp_path, api)}"\n')

        done = call("--config", settings, "services")
    assert "ExternalIP 10.244.0.2 is a pod's address" in done.stderr
