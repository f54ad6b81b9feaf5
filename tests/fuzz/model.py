# SPDX-License-Identifier: Apache-2.0
"""What a node's attachments must be after each call: the rules of the CNI contract, without a node.

Pure. An attachment is its network, pod and interface name; it lives until its DEL, a GC that does
not list it, or the end of its pod's namespace.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

DONE = 0
UNKNOWN_CONTAINER, INVALID_NETNS = 3, 8
INTERFACE_EXISTS, DUPLICATE = 100, 101
"""CNI error codes, pycni/errors.py."""

EVERYWHERE = {"0.0.0.0/0": 4, "::/0": 6}

Json = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """What a runtime names an attachment by; `pod` is a number."""

    network: str
    pod: int
    ifname: str


@dataclass
class Model:
    """The attachments that live, with the results of their ADDs, and the pods with a namespace."""

    pods: set[int]
    live: dict[Key, Json] = field(default_factory=dict)

    def add_gives(self, key: Key) -> int:
        if key.pod not in self.pods:
            return INVALID_NETNS
        if key in self.live:
            return DUPLICATE
        taken = any((one.pod, one.ifname) == (key.pod, key.ifname) for one in self.live)
        return INTERFACE_EXISTS if taken else DONE

    def check_gives(self, key: Key) -> int:
        if key.pod not in self.pods:
            return INVALID_NETNS
        return DONE if key in self.live else UNKNOWN_CONTAINER

    def added(self, key: Key, result: Json) -> None:
        assert not addresses(result) & self.addresses(), f"{key} has an address of another"
        self.live[key] = result

    def deleted(self, key: Key) -> None:
        self.live.pop(key, None)

    def collected(self, network: str, valid: Collection[Key]) -> None:
        self.live = {k: r for k, r in self.live.items() if k.network != network or k in valid}

    def pod_ended(self, pod: int) -> set[str]:
        """The addresses that nobody has deleted."""
        gone = [key for key in self.live if key.pod == pod]
        self.pods.discard(pod)
        return {address for key in gone for address in addresses(self.live.pop(key))}

    def addresses(self) -> set[str]:
        return {address for result in self.live.values() for address in addresses(result)}

    def host_ifnames(self) -> set[str]:
        return {result["interfaces"][0]["name"] for result in self.live.values()}

    def reachable(self) -> set[str]:
        """The addresses whose interface got its pod's default route: the others cannot answer."""
        return {
            address
            for result in self.live.values()
            for address in addresses(result)
            for route in result.get("routes", ())
            if EVERYWHERE.get(route["dst"]) == (6 if ":" in address else 4)
        }


def addresses(result: Json) -> set[str]:
    """Those of one ADD's result."""
    return {ip["address"].partition("/")[0] for ip in result["ips"]}
