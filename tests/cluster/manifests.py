# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects: the cluster's DNS, and what the checks run; pure."""

from __future__ import annotations

from typing import Any

from cluster.images import AGNHOST, COREDNS
from cluster.layout import DNS_DOMAIN, DNS_SERVICE

Json = dict[str, Any]

HTTP_PORT = 8080
HOST_PORT = 31500
COREFILE = f"""\
.:53 {{
    errors
    health
    ready
    kubernetes {DNS_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    cache 5
}}
"""
READS = ({"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"]},
         {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]})  # fmt: skip
RBAC = "rbac.authorization.k8s.io"
HOSTNAME = "kubernetes.io/hostname"


def dns() -> list[Json]:
    """CoreDNS: two replicas on different nodes if there are two, behind DNS_SERVICE."""
    role = "system:coredns"
    place = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role},
            "rules": [rule | {"verbs": ["list", "watch"]} for rule in READS],
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", **place}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place,
         "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": place | {"labels": labels},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _dns_pod(labels)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "clusterIP": DNS_SERVICE,
                "selector": labels,
                "ports": [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol}
                          for protocol in ("UDP", "TCP")],
            },
        },
    ]  # fmt: skip


def _dns_pod(labels: dict[str, str]) -> Json:
    return {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "topologySpreadConstraints": [_spread(labels)],
        "containers": [
            {
                "name": "coredns",
                "image": COREDNS,
                "imagePullPolicy": "Never",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "readinessProbe": _http_probe("/ready", 8181),
                "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}},
                "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns"}],
            }
        ],
        "volumes": [{"name": "configuration", "configMap": {"name": "coredns"}}],
    }


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def network_policy(name: str) -> Json:
    """One that would let no pod of its namespace be reached, and reach nobody."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def pod(
    name: str, node: str, *arguments: str, labels: dict[str, str] | None = None, **more: Any
) -> Json:
    """A pod of one container on a node; `arguments` are agnhost's, `more` is of the container."""
    container = {"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", **more}
    if arguments:
        container["args"] = list(arguments)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def server(name: str, node: str, *, host_port: int | None = None, port: int = HTTP_PORT) -> Json:
    """A pod that tells its name over HTTP, at its node's addresses, too, and has a shell."""
    opened = {"containerPort": port} | ({"hostPort": host_port} if host_port else {})
    probe = _http_probe("/healthz", port)
    return pod(name, node, "netexec", f"--http-port={port}", readinessProbe=probe, ports=[opened])


def probed(name: str, node: str) -> Json:
    """A pod that is ready while /tmp/ready is there, and alive while /tmp/dead is not."""
    probes = {
        "readinessProbe": _command_probe("test", "-e", "/tmp/ready"),
        "livenessProbe": _command_probe("test", "!", "-e", "/tmp/dead"),
    }
    return pod(name, node, "pause", **probes)


def speaker(name: str, node: str, words: str) -> Json:
    """A pod that says something and then sleeps."""
    return pod(name, node, command=["/bin/sh", "-c", f"echo '{words}'; exec /agnhost pause"])


def web(*, replicas: int) -> list[Json]:
    """A Deployment that loses no request when it is rolled, and its Service, of both families.

    A pod that ends serves some seconds on, until every node's proxy knows that it ends.
    """
    labels = {"app": "web"}
    container = {
        "name": "main",
        "image": AGNHOST,
        "imagePullPolicy": "Never",
        "args": ["netexec", f"--http-port={HTTP_PORT}", "--delay-shutdown=5"],
        "readinessProbe": _http_probe("/healthz", HTTP_PORT),
    }
    spec = {
        "terminationGracePeriodSeconds": 10,
        "topologySpreadConstraints": [_spread(labels)],
        "containers": [container],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {
                "type": "NodePort",
                "ipFamilyPolicy": "RequireDualStack",
                "selector": labels,
                "ports": [{"name": "http", "port": 80, "targetPort": HTTP_PORT}],
            },
        },
    ]


def _spread(labels: dict[str, str]) -> Json:
    return {
        "maxSkew": 1,
        "topologyKey": HOSTNAME,
        "nodeTaintsPolicy": "Honor",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }


def _http_probe(path: str, port: int) -> Json:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1}


def _command_probe(*command: str) -> Json:
    return {"exec": {"command": list(command)}, "periodSeconds": 1, "failureThreshold": 2,
            "timeoutSeconds": 5}  # fmt: skip
