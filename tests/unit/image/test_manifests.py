# SPDX-License-Identifier: Apache-2.0
"""The manifests: what they ask for, and that all forms of them are one."""

from __future__ import annotations

import copy
import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pytest

from image import build, manifests, tree
from image.manifests import HELM, KNOBS, KUBERNETES, documents
from pycni import settings
from pycni.bgp import resources
from pycni.cli import cli
from pycni.kernel import sysctl
from pycni.settings import NODE_NAME

CALL = re.compile(r"\{\{ toJson \.Values\.(\w+) \}\}")
"""The one construct of the chart's template."""


def source() -> list[Any]:
    return list(manifests.pieces())


def find(kind: str, name: str = "pycni") -> Any:
    (found,) = (one for one in source() if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


@pytest.fixture(autouse=True)
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_NAME, "worker-7")


@pytest.fixture
def pod() -> Any:
    return find("DaemonSet")["spec"]["template"]["spec"]


def container(pod: Any, name: str) -> Any:
    (found,) = (one for one in containers(pod) if one["name"] == name)
    return found


def containers(pod: Any) -> list[Any]:
    return [*pod["initContainers"], *pod["containers"]]


def helm(values: dict[str, Any]) -> list[Any]:
    """The objects that `helm template --include-crds` makes of these values."""
    text = (HELM / "templates" / "pycni.yaml").read_text(encoding="utf-8")
    rendered = CALL.sub(lambda call: json.dumps(values[call[1]]), text)
    assert "{{" not in rendered
    return documents((HELM / "crds" / "crds.yaml").read_text(encoding="utf-8")) + documents(
        rendered
    )


def values() -> dict[str, Any]:
    (found,) = documents((HELM / "values.yaml").read_text(encoding="utf-8"))
    return dict(found)


@pytest.mark.parametrize("path", sorted(manifests.rendered()), ids=lambda path: path.name)
def test_files_that_are_made_are_those_of_the_source(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == manifests.rendered()[path], "run: make manifests"


def test_plain_manifest_kustomization_and_chart_have_the_same_objects() -> None:
    plain = documents((KUBERNETES / "pycni.yaml").read_text(encoding="utf-8"))
    (kustomization,) = documents((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    kustomized = list(manifests.pieces(kustomization["resources"]))

    assert plain == kustomized == helm(values()) == source()
    assert len(plain) == 18


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.value)
def test_each_value_of_the_chart_changes_its_places_and_nothing_else(knob: Any) -> None:
    wanted = copy.deepcopy(source())
    (changed,) = (
        one for one in wanted if (one["kind"], one["metadata"]["name"]) == (knob.kind, knob.name)
    )
    for place in knob.places:
        inner = changed
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = 'a "quoted"\ntext: {of} two lines'

    assert helm(values() | {knob.value: 'a "quoted"\ntext: {of} two lines'}) == wanted


def test_the_volumes_that_values_change_are_those_of_the_cni_directories() -> None:
    changed = helm(values() | {"cniBinPath": "/bin/there", "cniConfPath": "/conf/there"})

    (daemonset,) = (one for one in changed if one["kind"] == "DaemonSet")
    paths = {
        one["name"]: one["hostPath"]["path"]
        for one in daemonset["spec"]["template"]["spec"]["volumes"]
        if "hostPath" in one
    }
    assert (paths["cni-bin"], paths["cni-conf"]) == ("/bin/there", "/conf/there")


def test_the_image_is_the_one_that_is_built(pod: Any) -> None:
    assert {one["image"] for one in containers(pod)} == {build.NAME}
    (chart,) = documents((HELM / "Chart.yaml").read_text(encoding="utf-8"))
    assert build.NAME.endswith(f":{chart['appVersion']}")


def test_every_command_line_is_one_that_pycni_has() -> None:
    for name in ("daemonset.yaml", "uninstall.yaml"):
        (daemonset,) = manifests.pieces([name])
        for one in containers(daemonset["spec"]["template"]["spec"]):
            if "command" in one:
                continue
            verb, *arguments = one["args"]
            command = cli.get_command(click.Context(cli), verb)
            assert command is not None, verb
            command.make_context(verb, list(arguments))


def test_a_network_policy_is_warned_of_and_never_refused() -> None:
    policy, binding = (
        next(one for one in source()
             if (one["kind"], one["metadata"]["name"]) == (kind, "pycni-no-network-policy"))
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    )  # fmt: skip

    assert binding["spec"]["validationActions"] == ["Warn"]
    assert policy["spec"]["failurePolicy"] == "Ignore"
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["networkpolicies"]


def test_only_the_container_that_mounts_for_the_host_is_privileged(pod: Any) -> None:
    privileged = [
        one["name"] for one in containers(pod) if one["securityContext"].get("privileged")
    ]

    assert privileged == ["prepare"]
    for one in containers(pod):
        shared = [m["name"] for m in one["volumeMounts"]
                  if m.get("mountPropagation") == "Bidirectional"]  # fmt: skip
        assert shared == (["bpffs"] if one["name"] == "prepare" else [])
        assert one["securityContext"]["readOnlyRootFilesystem"] is True


def test_capabilities_are_those_of_the_systemd_unit_and_for_others_files(pod: Any) -> None:
    unit = (manifests.PROJECT / "deploy/systemd/pycni-agent.service").read_text()
    (bounding,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)

    files = "CAP_DAC_OVERRIDE"
    for name, wanted in (("setup", {*bounding.split(), files}),
                         ("agent", {*bounding.split(), files}), ("install", {files})):  # fmt: skip
        capabilities = container(pod, name)["securityContext"]["capabilities"]
        assert capabilities["drop"] == ["ALL"]
        assert {f"CAP_{one}" for one in capabilities.get("add", ())} == wanted


def test_the_list_is_written_by_the_agent_after_all_else(pod: Any) -> None:
    order = [one["name"] for one in containers(pod)]

    assert order == ["prepare", "setup", "install", "agent"]
    assert "--only=plugin" in container(pod, "install")["args"]
    assert "--install-list" in container(pod, "agent")["args"]
    (conf,) = [m for m in container(pod, "install")["volumeMounts"] if m["name"] == "cni-conf"]
    assert conf["readOnly"] is True


def test_pods_are_on_every_node_first_and_need_nothing_of_the_cluster(pod: Any) -> None:
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["hostNetwork"] is True
    assert pod["dnsPolicy"] == "Default"
    assert "hostPID" not in pod
    assert "hostIPC" not in pod
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    assert find("DaemonSet")["metadata"]["namespace"] == "kube-system"


def test_a_rolling_update_leaves_most_nodes_with_an_agent() -> None:
    strategy = find("DaemonSet")["spec"]["updateStrategy"]

    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}


def test_memory_is_bounded_and_the_cpu_is_not(pod: Any) -> None:
    for one in containers(pod):
        assert one["resources"] == {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        }


def test_probes_ask_the_agent_alone_and_wait_for_a_slow_start(pod: Any) -> None:
    agent = container(pod, "agent")

    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        interpreter, flags, script = agent[name]["exec"]["command"]
        assert (interpreter, flags) == ("/usr/bin/python3", "-IS")
        module = Path(script).relative_to(f"/{tree.MODULES}")
        assert (manifests.PROJECT / module).is_file()
    startup = agent["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 300
    liveness = agent["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30


def test_each_container_knows_its_node_and_where_parameters_are(pod: Any) -> None:
    for one in containers(pod):
        node, parameters = one["env"]
        assert node == {
            "name": NODE_NAME,
            "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
        }
        assert parameters == {"name": sysctl.PLACE, "value": "/host/proc/sys"}


def test_the_api_server_can_be_named(pod: Any) -> None:
    optional = [{"configMapRef": {"name": "pycni-api-server", "optional": True}}]

    for name in ("prepare", "setup", "agent"):
        assert container(pod, name)["envFrom"] == optional
    changed = helm(values() | {"apiServer": {"KUBERNETES_SERVICE_HOST": "192.0.2.1"}})
    (config,) = (one for one in changed if one["metadata"]["name"] == "pycni-api-server")
    assert config["data"] == {"KUBERNETES_SERVICE_HOST": "192.0.2.1"}


def test_directories_that_pods_outlive_are_the_hosts_at_the_same_path(pod: Any) -> None:
    paths = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}

    assert paths == {
        "bpffs": "/sys/fs/bpf",
        "run": "/run/pycni",
        "state": "/var/lib/pycni",
        "proc-sys-net": "/proc/sys/net",
        "cni-bin": "/opt/cni/bin",
        "cni-conf": "/etc/cni/net.d",
        "cni-results": "/var/lib/cni",
        "cgroup": "/sys/fs/cgroup",
    }
    moved = {"proc-sys-net": "/host/proc/sys/net", "cgroup": "/host/sys/fs/cgroup"}
    for one in containers(pod):
        for mount in one["volumeMounts"]:
            if mount["name"] in paths:
                wanted = moved.get(mount["name"], paths[mount["name"]])
                assert mount["mountPath"] == wanted
    ends = {moved.get(name, path).lstrip("/") for name, path in paths.items()}
    assert ends <= set(tree.DIRECTORIES)


def test_the_settings_are_those_of_the_cluster_network(tmp_path: Path) -> None:
    text = find("ConfigMap")["data"]["pycni.toml"]

    found = settings.parse(text, tmp_path / "pycni.toml")

    spec = find("ClusterNetwork", "default")["spec"]
    assert found.store_url == "kube:"
    assert list(found.cluster.cidrs) == list(map(ip_network, spec["cidrs"]))
    assert (found.vni, found.port) == (spec["vni"], spec["port"])
    assert found.node_prefix.model_dump() == spec["nodePrefix"]
    assert found.cache_dir.is_relative_to(found.state_dir), "the root of the container is read-only"


def test_the_source_is_adapted_to_other_networks_and_another_api_server(tmp_path: Path) -> None:
    network = {"vni": 9, "port": 4790, "cidrs": ["10.96.0.0/12"], "nodePrefix": {"ipv4": 25}}

    objects = manifests.adapted(
        network, api_server=("192.0.2.1", 6443), settings={"encap": "direct"}
    )

    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert found["ClusterNetwork", "default"]["spec"] == network
    text = found["ConfigMap", "pycni"]["data"]["pycni.toml"]
    read = settings.parse(text, tmp_path / "pycni.toml")
    cluster = read.cluster
    assert read.encap == "direct"
    assert list(map(str, cluster.cidrs)) == network["cidrs"]
    assert (cluster.vni, cluster.port, cluster.node_prefix4) == (9, 4790, 25)
    assert found["ConfigMap", "pycni-api-server"]["data"] == {
        "KUBERNETES_SERVICE_HOST": "192.0.2.1",
        "KUBERNETES_SERVICE_PORT": "6443",
    }


def test_with_its_own_networks_the_source_stays_as_it_is(tmp_path: Path) -> None:
    network = find("ClusterNetwork", "default")["spec"]

    adapted = manifests.adapted(network)

    for one, before in zip(adapted, source(), strict=True):
        if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", "pycni"):
            one, before = (
                settings.parse(each["data"]["pycni.toml"], tmp_path / "pycni.toml")
                for each in (one, before)
            )
        assert one == before


def test_the_account_is_that_of_the_roles_and_the_policy(pod: Any) -> None:
    account = find("ServiceAccount")["metadata"]

    assert pod["serviceAccountName"] == account["name"]
    assert find("DaemonSet")["metadata"]["namespace"] == account["namespace"]


def test_of_secrets_only_passwords_of_bgp_are_mounted_for_root_alone(pod: Any) -> None:
    (secret,) = (one for one in pod["volumes"] if "secret" in one)
    assert secret["secret"] == {"secretName": "pycni-bgp", "optional": True, "defaultMode": 0o400}
    users = [one["name"] for one in containers(pod)
             if any(mount["name"] == secret["name"] for mount in one["volumeMounts"])]  # fmt: skip
    (mount,) = (
        one for one in container(pod, "agent")["volumeMounts"] if one["name"] == secret["name"]
    )
    assert users == ["agent"]
    assert mount == {"name": "bgp", "mountPath": str(resources.PASSWORDS), "readOnly": True}
    assert "automountServiceAccountToken" not in pod


def test_uninstalling_tears_down_before_the_plugin_goes() -> None:
    (daemonset,) = manifests.pieces(["uninstall.yaml"])
    pod = daemonset["spec"]["template"]["spec"]

    assert [one["name"] for one in containers(pod)] == ["teardown", "uninstall", "done"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["volumes"] == find("DaemonSet")["spec"]["template"]["spec"]["volumes"]
    mounts = {one["name"]: one for one in container(pod, "uninstall")["volumeMounts"]}
    assert not any(mounts[name].get("readOnly") for name in ("cni-bin", "cni-conf"))
    assert daemonset["metadata"]["name"] != find("DaemonSet")["metadata"]["name"]


def test_crds_come_before_what_needs_them() -> None:
    kinds = [one["kind"] for one in source()]

    assert kinds.index("ClusterNetwork") > max(
        number for number, kind in enumerate(kinds) if kind == "CustomResourceDefinition"
    )
    assert kinds[-1] == "DaemonSet"
