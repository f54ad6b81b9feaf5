# SPDX-License-Identifier: Apache-2.0
"""Names that all parts of pycni agree on: the settings file, attachments, links, the two MACs.

Pure. A link's name and MAC come from the attachment alone, so code that knows the attachment finds
the link without a record of it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SETTINGS_PATH = Path("/etc/pycni/pycni.toml")
"""The settings file of a node that was told of no other."""

NAME_HEAD = "pcn"
"""First bytes of the name of each pod's host end."""

ALIAS_HEAD = "pycni:1"
"""First word of the alias of a link that is ours; the number is the alias format's version."""

NODE_ALIAS_HEAD = "pycni-node:1"
"""First word of the alias of the overlay device; the number is the alias format's version."""

DEVICE = "pycni0"
"""The overlay device."""

VETH, NETKIT = "veth", "netkit"
"""The kinds of links that pods have."""

MACVLAN, IPVLAN = "macvlan", "ipvlan"
"""The kinds of links of pods that are on the network of an interface of their node."""

CHILD_HEAD = "pcl"
"""First bytes of the name of the node's own child of such an interface."""

GATEWAY_MAC = "02:70:79:63:6e:69"
"""MAC of every host end and of the overlay device: a pod sees it behind every address."""

OVERLAY_MAC = "02:70:79:63:6e:6f"
"""Inner source MAC between nodes."""

AWAY_NOTE = "agent-away"
"""The file in the run directory that says since when no agent has answered a STATUS: whole seconds
since the boot. Whoever hears from an agent removes it, and so does a starting agent."""

NODE_NAME_MAX = 253
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1123, section 2.1, in lower case as Kubernetes has it; a subdomain is labels with dots."""


@dataclass(frozen=True)
class AttachmentKey:
    """What a runtime names an attachment by: unique on a node (CNI spec, "Attachment")."""

    network: str
    container_id: str
    ifname: str

    @property
    def digest(self) -> str:
        """128 bits in hex; the alias holds them all, names the first of them."""
        text = "\0".join((self.network, self.container_id, self.ifname))
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]

    @property
    def host_ifname(self) -> str:
        """Deterministic name of the host end: 15 bytes, the kernel's limit."""
        return host_ifname(self.digest)

    @property
    def mac(self) -> str:
        """Deterministic, locally administered unicast MAC of the pod's end."""
        return ":".join(["02", *(self.digest[i : i + 2] for i in range(12, 22, 2))])


def host_ifname(digest: str) -> str:
    """Deterministic name of the host end of the attachment with that digest."""
    return NAME_HEAD + digest[:12]


def is_host_ifname(name: str) -> bool:
    """Whether `host_ifname` could be the maker of a name."""
    return re.fullmatch(rf"{NAME_HEAD}[0-9a-f]{{12}}", name) is not None


def is_node_name(name: str) -> bool:
    """Whether a node can have that name: a DNS subdomain in lower case."""
    return len(name) <= NODE_NAME_MAX and all(map(DNS_LABEL.fullmatch, name.split(".")))
