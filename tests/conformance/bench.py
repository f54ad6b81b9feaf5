# SPDX-License-Identifier: Apache-2.0
"""What a case works with: pods, attachments, comparisons; and the tidying up after it.

Every case ends with the host as it was before the first one, or it fails for what it left.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from conformance import call, namespaces, oracle
from conformance.call import Answer, Json
from conformance.fake_ipam import FakeIpam
from conformance.netlink import Rtnl
from conformance.oracle import Oracle, Snapshot, differences
from conformance.patience import patient
from conformance.records import Address, Link
from conformance.results import Skip
from conformance.runtime import IFNAME, Attachment
from conformance.sandbox import SUITE, UPLINK, wire
from conformance.subject import Subject

SETTLE = patient(1.0)
"""Seconds the kernel may take for what it does by itself, such as ending a namespace's links."""

OTHER_SUBNETS = {4: "10.77.0.0/24", 6: "fd00:77::/64"}
"""For IPAM plugins, where the subject's own configuration names no subnets."""


@dataclass
class Network:
    """A network of the subject; `families` are those its pods get."""

    label: str
    conf: Json
    families: tuple[int, ...] = ()

    @property
    def delegates(self) -> bool:
        return bool((self.conf.get("ipam") or {}).get("type"))

    @property
    def subnets(self) -> list[str]:
        """One per family, of the configured ranges if it has such."""
        ranges = (self.conf.get("ipam") or {}).get("ranges") or []
        configured = [pieces[0]["subnet"] for pieces in ranges if pieces]
        return configured or [OTHER_SUBNETS[family] for family in self.families or (4,)]


@dataclass
class World:
    """What lasts from the first case of a subject to the last."""

    subject: Subject
    plugin: Path
    cni_path: str
    networks: dict[str, Network]
    versions: tuple[str, ...]
    oracle: Oracle
    baseline: Snapshot


@dataclass(frozen=True)
class Pod:
    """A network namespace as a runtime makes it, before anything is attached."""

    name: str
    path: Path

    def link(self, name: str = IFNAME) -> Link | None:
        with Rtnl(self.path) as rtnl:
            return rtnl.link(name)

    def its(self, name: str = IFNAME) -> Link:
        """The interface, which must be there."""
        link = self.link(name)
        assert link is not None, f"there is no {name} in the pod"
        return link

    def addresses(self, name: str = IFNAME) -> list[Address]:
        """Of one interface, without link-local ones."""
        index = self.its(name).index
        with Rtnl(self.path) as rtnl:
            return [one for one in rtnl.addresses(index) if not one.link_local]

    def network(self) -> Snapshot:
        return oracle.network(self.path)


class Bench:
    """For one case; `close` takes back what the case made."""

    def __init__(self, world: World, case: str) -> None:
        self.world = world
        self._name = re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-")
        self._numbers = itertools.count(1)
        self._attachments: list[Attachment] = []
        self._fakes: list[FakeIpam] = []
        self.undo = ExitStack()

    @property
    def directory(self) -> Path:
        """A private one, where the oracle does not look."""
        path = SUITE / self._name
        path.mkdir(exist_ok=True)
        return path

    @property
    def network(self) -> Network:
        """The subject's first."""
        return next(iter(self.world.networks.values()))

    def needs(self, version: str, what: str = "") -> None:
        """Skip the case for a plugin that does not speak a version."""
        if version not in self.world.versions:
            raise Skip(f"not supported: VERSION does not list {version}{what and f' ({what})'}")

    def delegating(self) -> Network:
        """The first network that delegates IPAM; skips without one."""
        for network in self.world.networks.values():
            if network.delegates:
                return network
        raise Skip("no network of this subject delegates IPAM")

    def declares(self, capability: str) -> Network:
        """The first network that declares a capability; skips without one."""
        for network in self.world.networks.values():
            if (network.conf.get("capabilities") or {}).get(capability):
                return network
        raise Skip(f"no network of this subject declares the capability {capability}")

    def binary(self, name: str) -> Path:
        """Another plugin on CNI_PATH; skips without it."""
        for directory in self.world.cni_path.split(":"):
            path = Path(directory, name)
            if path.is_file():
                return path
        raise Skip(f"the plugin {name} is not on CNI_PATH")

    def pod(self) -> Pod:
        """A new namespace, loopback up, gone after the case."""
        name = f"{self._name}-{next(self._numbers)}"
        path = namespaces.make(name)
        self.undo.callback(namespaces.remove, path)
        with Rtnl(path) as rtnl:
            rtnl.set_link(1, up=True)
        return Pod(name, path)

    def attachment(
        self,
        pod: Pod | None = None,
        *,
        network: str | Network = "",
        version: str = "",
        conf: Mapping[str, Any] | None = None,
        ipam: FakeIpam | None = None,
        **fields: Any,
    ) -> Attachment:
        """A container's interface, not yet attached; detached after the case if need be.

        Without a pod it has a path where there is none. `conf` replaces keys; `ipam` is delegated
        to, and is found on CNI_PATH.
        """
        if isinstance(network, str):
            network = self.world.networks[network] if network else self.network
        document = {**network.conf, **(conf or {})}
        path = self.world.cni_path
        if version:
            self.needs(version)
            document["cniVersion"] = version
            if ipam is None and network.delegates:
                self._ipam_speaks(document["ipam"]["type"], version)
        if ipam is not None:
            document["ipam"] = ipam.conf | (document["ipam"] if conf and "ipam" in conf else {})
            path = f"{ipam.directory}:{path}"
        number = next(self._numbers)
        made = Attachment(
            **{
                "plugin": self.world.plugin,
                "cni_path": path,
                "conf": document,
                "container_id": f"{self._name}-{number}",
                "netns": str(pod.path if pod else namespaces.NETNS_DIR / f"{self._name}-none"),
                **fields,
            }
        )
        self._attachments.append(made)
        return made

    def _ipam_speaks(self, name: str, version: str) -> None:
        """Skip what the network's IPAM plugin, which is not under test, cannot do."""
        answer = call.execute(self.binary(name), {"CNI_COMMAND": "VERSION"}, b"{}")
        if version not in answer.document["supportedVersions"]:
            raise Skip(f"the IPAM plugin {name} does not speak {version}")

    def attached(self, **fields: Any) -> tuple[Pod, Attachment]:
        """A pod with its interface."""
        pod = self.pod()
        attachment = self.attachment(pod, **fields)
        attachment.attach()
        return pod, attachment

    def fake_ipam(self, network: Network | None = None) -> FakeIpam:
        """An IPAM plugin under the case's control; skips if the subject delegates nowhere."""
        network = network or self.delegating()
        directory = self.directory / f"ipam{next(self._numbers)}"
        made = FakeIpam(directory, subnets=network.subnets)
        self._fakes.append(made)
        return made

    def delegated(self, ipam: FakeIpam, pod: Pod | None = None, **fields: Any) -> Attachment:
        """An attachment in the delegating network, with a fake IPAM plugin in it."""
        return self.attachment(pod or self.pod(), network=self.delegating(), ipam=ipam, **fields)

    def node(
        self, command: str, *, conf: Mapping[str, Any] | None = None, **changes: Any
    ) -> Answer:
        """GC or STATUS, which are about a network, in version 1.1.0."""
        self.needs("1.1.0", command)
        network = changes.pop("network", None) or self.network
        ipam: FakeIpam | None = changes.pop("ipam", None)
        document = {**network.conf, "cniVersion": "1.1.0", **(conf or {})}
        path = self.world.cni_path
        if ipam is not None:
            document["ipam"], path = ipam.conf, f"{ipam.directory}:{path}"
        empty = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"), "")
        env = {"CNI_COMMAND": command, **empty, "CNI_PATH": path, **changes.pop("env", {})}
        kept = {key: one for key, one in env.items() if one is not None}
        return call.execute(self.world.plugin, kept, json.dumps(document).encode(), **changes)

    def snapshot(self) -> Snapshot:
        return self.world.oracle.snapshot()

    def warm_up(self, act: Callable[[Bench], None]) -> None:
        """Do something once before it is compared, for what it makes once and keeps."""
        before = Bench(self.world, f"{self._name}-warm-up")
        try:
            act(before)
        finally:
            before.take_back()
        self.world.baseline = self.snapshot()

    @contextmanager
    def unchanged(self, *pods: Pod) -> Iterator[None]:
        """What is done within must leave the host, and these pods, as they were."""
        inside = [pod.network() for pod in pods]
        before = self.snapshot()
        yield
        found = self._settled(before, SETTLE)
        for pod, had in zip(pods, inside, strict=True):
            found += [f"in the pod: {line}" for line in differences(had, pod.network())]
        assert not found, f"something changed: {'; '.join(found[:6])}"

    def take_back(self) -> None:
        """Detach what is attached, and undo the rest."""
        for fake in self._fakes:
            fake.install()
            fake.behave()
        for attachment in self._attachments:
            if attachment.result is not None:
                with suppress(AssertionError):
                    attachment.delete()
        self.undo.close()

    def close(self) -> list[str]:
        """Take back all; returns what is left on the host that was not there before."""
        self.take_back()
        left = self._settled(self.world.baseline, SETTLE)
        if left:
            self._repair()
        return left

    def _settled(self, wanted: Snapshot, seconds: float) -> list[str]:
        """Differences that stay."""
        end = time.monotonic() + seconds
        while found := differences(wanted, self.snapshot()):
            if time.monotonic() > end:
                return found
            time.sleep(0.02)
        return []

    def _repair(self) -> None:
        """End links that a case left, and go on from what is then there."""
        known = {line.split()[1] for line in self.world.baseline["links"]}
        with Rtnl() as rtnl:
            for link in rtnl.links():
                if link.name not in known:
                    rtnl.delete_link(link.index)
            if rtnl.link(UPLINK) is None:
                wire()
        self.world.baseline = self.snapshot()


def families_of(result: Json) -> tuple[int, ...]:
    return tuple(sorted({ip_network(one, strict=False).version for one in addresses_of(result)}))


def addresses_of(result: Json) -> list[str]:
    """The addresses of a result of any version, with their prefix lengths."""
    new = [one["address"] for one in result.get("ips", [])]
    return new or [result[key]["ip"] for key in ("ip4", "ip6") if key in result]


def bare(result: Json) -> list[str]:
    """The addresses without prefix lengths."""
    return [one.partition("/")[0] for one in addresses_of(result)]


def pod_interface(attachment: Attachment) -> Json:
    """The result's entry for the interface in the pod."""
    assert attachment.result is not None
    for one in attachment.result.get("interfaces", []):
        if one["name"] == attachment.ifname and one.get("sandbox"):
            found: Json = one
            return found
    raise AssertionError(f"no interface of the result is {attachment.ifname} with a sandbox")


def host_link(attachment: Attachment, pod: Pod) -> Link:
    """The veth on the host that the pod's interface leads to; skips for other kinds."""
    inside = pod.its(attachment.ifname)
    if inside.kind != "veth":
        raise Skip(f"the pod's interface is a {inside.kind}, without an end on the host")
    with Rtnl() as rtnl:
        for link in rtnl.links():
            if link.index == inside.peer and link.kind == "veth":
                return link
    raise AssertionError("the host has no peer of the pod's interface")
