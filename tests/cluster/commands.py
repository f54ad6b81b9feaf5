# SPDX-License-Identifier: Apache-2.0
"""Command lines and configurations of a cluster's daemons; pure.

`programs` is the directory of the programs that were built (build.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.layout import (
    API_PORT,
    CONTROL_TAINT,
    DNS_DOMAIN,
    DNS_SERVICE,
    ETCD_PORT,
    NODE_PREFIX,
    PODS,
    SERVICES,
    Cluster,
    address,
    addresses,
)
from pycni.lab.layout import LabNode

ETCD = f"http://127.0.0.1:{ETCD_PORT}"
ETCD_PEER = "http://127.0.0.1:2380"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_BIN, CNI_CONF = "/opt/cni/bin", "/etc/cni/net.d"
SHUTDOWN_PERIODS = {"shutdownGracePeriod": "150s", "shutdownGracePeriodCriticalPods": "30s"}
"""Of kubelet, for all pods and, of that, for those of the node itself, the network's with them."""

Command = list[str | Path]


def etcd(programs: Path) -> Command:
    """The one member of a cluster's etcd. It never waits for the disk: it need not survive."""
    return [
        programs / "etcd",
        "--name=only",
        "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync=true",
        "--log-level=warn",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=only={ETCD_PEER}",
    ]


def api_server(cluster: Cluster, programs: Path) -> Command:
    keys = cluster.keys
    return [
        programs / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--secure-port={API_PORT}",
        f"--advertise-address={address(cluster.control)}",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        f"--token-auth-file={keys}/tokens.csv",
        "--allow-privileged=true",
        f"--tls-cert-file={keys}/api.crt",
        f"--tls-private-key-file={keys}/api.key",
        "--cert-dir=/run/kubernetes",
        f"--service-account-issuer=https://kubernetes.default.svc.{DNS_DOMAIN}",
        f"--service-account-key-file={keys}/service-account.pub",
        f"--service-account-signing-key-file={keys}/service-account.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--v=1",
    ]


def controller_manager(cluster: Cluster, programs: Path) -> Command:
    """It gives nodes their pod CIDRs."""
    keys = cluster.keys
    return [
        programs / "kube-controller-manager",
        f"--kubeconfig={keys}/controller-manager.kubeconfig",
        f"--root-ca-file={keys}/ca.crt",
        f"--service-account-private-key-file={keys}/service-account.key",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={PODS}",
        *(f"--node-cidr-mask-size-{family}={length}" for family, length in NODE_PREFIX.items()),
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        "--leader-elect=false",
        "--cert-dir=/run/kubernetes/controller-manager",
        "--v=1",
    ]


def scheduler(cluster: Cluster, programs: Path) -> Command:
    return [
        programs / "kube-scheduler",
        f"--kubeconfig={cluster.keys}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--cert-dir=/run/kubernetes/scheduler",
        "--v=1",
    ]


def kube_proxy(cluster: Cluster, programs: Path, node: LabNode) -> Command:
    """The parameters of connection tracking stay the computer's; pod CIDRs are in no Node."""
    return [
        programs / "kube-proxy",
        f"--kubeconfig={cluster.keys}/proxy.kubeconfig",
        f"--hostname-override={node.name}",
        f"--proxy-mode={cluster.kube_proxy}",
        f"--cluster-cidr={PODS}",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--oom-score-adj=0",
        "--v=2",
    ]


def kubelet(cluster: Cluster, programs: Path, node: LabNode) -> Command:
    return [
        programs / "kubelet",
        f"--config={node.directory}/kubelet.json",
        f"--kubeconfig={cluster.keys}/kubelet-{node.name}.kubeconfig",
        f"--hostname-override={node.name}",
        f"--node-ip={','.join(addresses(node))}",
        "--v=2",
    ]


def kubelet_configuration(cluster: Cluster, node: LabNode) -> dict[str, Any]:
    """KubeletConfiguration v1beta1.

    It accepts everybody, because it listens in the cluster's underlay only. Containers' places in
    the queue of the OOM killer stay as they are: lowering one needs CAP_SYS_RESOURCE.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cluster.cgroup(node)}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DNS_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%",
                         "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "kubeAPIBurst": 200,
        "kubeAPIQPS": 100,
        "oomScoreAdj": 0,
        "registerWithTaints": [{"key": CONTROL_TAINT, "effect": "NoSchedule"}]
        * (node == cluster.control),
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": False,
        "staticPodPath": "/etc/kubernetes/manifests",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    }  # fmt: skip
