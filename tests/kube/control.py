# SPDX-License-Identifier: Apache-2.0
"""etcd, the API server and the controllers that give pod CIDRs and collect garbage, on loopback."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.waiting import until
from image.manifests import PIECES
from pycni.stores.kube.access import Access
from pycni.stores.kube.client import Client
from unit.stores.certificates import make_authority, make_certificate

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
READY_SECONDS = 120.0
END_SECONDS = 10.0
AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    users: ["system:serviceaccount:kube-system:pycni"]
  - level: None
"""
CONTROLLERS = "node-ipam-controller,garbage-collector-controller"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Control:
    """A control plane whose files are in `directory`. `programs` is where the build is."""

    directory: Path
    programs: Path
    api_port: int = field(default_factory=free_port)
    etcd_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """The administrator's."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def admin(self) -> Client:
        return Client(self.access(token=self.token))

    def access(self, **user: Any) -> Access:
        servers = (("127.0.0.1", self.api_port),)
        return Access(servers, ca_file=self.directory / "ca.pem", **user)

    def kubeconfig(self, name: str, **user: str) -> Path:
        """A kubeconfig file for somebody."""
        server = {"server": f"https://127.0.0.1:{self.api_port}",
                  "certificate-authority": str(self.directory / "ca.pem")}  # fmt: skip
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        file = self.directory / f"{name}.kubeconfig"
        file.write_text(json.dumps(document))
        file.chmod(0o600)
        return file

    def start(self) -> None:
        """All of it; returns when the API answers."""
        make_authority(self.directory, "ca")
        make_certificate(self.directory, "api", authority="ca")
        key = self.directory / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = self.directory / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        (self.directory / "audit.yaml").write_text(AUDIT)
        self.kubeconfig("admin", token=self.token)
        self._start("etcd", self._etcd())
        self.start_api()
        self._start("kube-controller-manager", self._controllers())

    def start_api(self) -> None:
        self._start("kube-apiserver", self._api())
        until(self._is_ready, f"the API server is ready: {self.directory}", READY_SECONDS)

    def kill_api(self) -> None:
        """As a crash does."""
        self._end("kube-apiserver", kill=True)

    def end(self) -> None:
        for name in list(self._processes)[::-1]:
            self._end(name)

    def kubectl(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        config = self.directory / "admin.kubeconfig"
        return subprocess.run(
            [self.programs / "kubectl", "--kubeconfig", config, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"HOME": str(self.directory), "PATH": os.defpath},
        )

    def install(self) -> None:
        """The manifests of deploy/kubernetes, over what a test made of them; but for the DaemonSet,
        since there is no kubelet."""
        crds, *others = (DEPLOY / name for name in PIECES if name != "daemonset.yaml")
        apply = ("apply", "--server-side", "--force-conflicts")
        for command in (
            (*apply, f"--filename={crds}"),
            ("wait", "--for=condition=Established", "-f", crds),
            (*apply, *(f"--filename={path}" for path in others)),
        ):
            done = self.kubectl(*command)
            assert done.returncode == 0, done.stderr

    def etcd(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """What etcd's JSON gateway answers; bytes in base64."""
        connection = http.client.HTTPConnection("127.0.0.1", self.etcd_port, timeout=10)
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(document))
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def delete_behind_the_api(self, key: str) -> None:
        """Delete a key, and have etcd forget that it was there."""
        found = self.etcd("kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})
        assert found["deleted"] == "1"
        self.etcd("kv/compaction", {"revision": found["header"]["revision"]})

    def audited(self) -> set[tuple[str, str]]:
        """Verb and resource of all that agents asked for so far, and may."""
        found = set()
        for line in (self.directory / "audit.log").read_text().splitlines():
            event = json.loads(line)
            if event["responseStatus"].get("code", 0) != 403 and "objectRef" in event:
                found.add((event["verb"], event["objectRef"]["resource"]))
        return found

    def _is_ready(self) -> bool:
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = (self.directory / f"{name}.log").read_text()[-2000:]
                raise AssertionError(f"{name} ended: {log}")
        return self.kubectl("get", "--raw=/readyz").returncode == 0

    def _etcd(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{one}" for one in (self.etcd_port, self.peer_port))
        return [
            *("--name=only", f"--data-dir={self.directory}/etcd", "--unsafe-no-fsync=true"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=only={peer}",
        ]

    def _api(self) -> list[str]:
        where = self.directory
        return [
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.api_port}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--token-auth-file={where}/tokens.csv",
            f"--tls-cert-file={where}/api.pem",
            f"--tls-private-key-file={where}/api.key",
            f"--cert-dir={where}/certs",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={where}/service-account.key",
            f"--service-account-signing-key-file={where}/service-account.key",
            f"--audit-policy-file={where}/audit.yaml",
            f"--audit-log-path={where}/audit.log",
            "--audit-log-mode=blocking",
        ]

    def _controllers(self) -> list[str]:
        return [
            f"--kubeconfig={self.directory}/admin.kubeconfig",
            f"--authentication-kubeconfig={self.directory}/admin.kubeconfig",
            f"--authorization-kubeconfig={self.directory}/admin.kubeconfig",
            f"--controllers={CONTROLLERS}",
            "--allocate-node-cidrs=true",
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
            "--node-cidr-mask-size-ipv4=24",
            "--node-cidr-mask-size-ipv6=64",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def _start(self, name: str, arguments: Iterable[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self.programs / name, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        time.sleep(0.2)

    def _end(self, name: str, *, kill: bool = False) -> None:
        process = self._processes.pop(name)
        (process.kill if kill else process.terminate)()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)
