# SPDX-License-Identifier: Apache-2.0
"""The part of `Rtnl` that makes macvlan and ipvlan links, and reaches them in pods' namespaces.

A link in another namespace is named by its index there and by the number that the namespace has
here. The number ends with the namespace, and then another one may get it.
"""

from __future__ import annotations

import errno

from pycni.cluster import IPAddress
from pycni.kernel.children import (
    RTM_DELNEIGH,
    RTM_GETNSID,
    RTM_NEWNEIGH,
    RTM_NEWNSID,
    pack_deletion,
    pack_ipvlan,
    pack_macvlan,
    pack_neighbour,
    pack_number_question,
    pack_numbering,
    pack_orphan,
    read_number_answer,
)
from pycni.kernel.iproute import RareRequests
from pycni.kernel.links import RTM_DELLINK, RTM_NEWLINK, End
from pycni.kernel.netlink import NEW, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkError


class ChildRequests(RareRequests):
    """On the socket of an Rtnl. A refusal of the kernel is raised as NetlinkError."""

    def add_macvlan(self, child: End, *, parent: int) -> None:
        """Make a macvlan in bridge mode on a link of this namespace, down."""
        self._asker.request(RTM_NEWLINK, NEW, pack_macvlan(child, parent=parent))

    def add_ipvlan(self, child: End, *, parent: int, mode: int) -> None:
        """Make an ipvlan on a link of this namespace, down; all of that link get this mode."""
        self._asker.request(RTM_NEWLINK, NEW, pack_ipvlan(child, parent=parent, mode=mode))

    def has_kind(self, kind: str) -> bool:
        """Whether this kernel has a kind of link that needs another link; loads its module."""
        try:
            self._asker.request(RTM_NEWLINK, NEW, pack_orphan(kind))
        except NetlinkError as error:
            return error.errno != errno.EOPNOTSUPP
        return True

    def netns_number(self, netns_fd: int) -> int:
        """The number that a namespace has here; it gets one if it has none."""
        while True:  # somebody else may give it one at the same time
            answer = self._asker.request(RTM_GETNSID, 0, pack_number_question(netns_fd))
            found = read_number_answer(answer)
            if found is not None:
                return found
            try:
                self._asker.request(RTM_NEWNSID, NLM_F_ACK, pack_numbering(netns_fd))
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise

    def delete_link_in(self, netnsid: int, ifindex: int) -> bool:
        """Delete a link in the namespace with that number; False if link or namespace is gone."""
        try:
            self._asker.request(RTM_DELLINK, NLM_F_ACK, pack_deletion(ifindex, netnsid))
        except NetlinkError as error:
            if error.errno not in (errno.ENODEV, errno.EINVAL):
                raise
            return False
        return True

    def replace_neighbour(self, ifindex: int, address: IPAddress, mac: str) -> None:
        """Say for good which MAC an address has."""
        flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
        self._asker.request(RTM_NEWNEIGH, flags, pack_neighbour(ifindex, address, mac))

    def delete_neighbour(self, ifindex: int, address: IPAddress) -> None:
        """Undo of `replace_neighbour`. ENOENT or ENODEV if it is gone."""
        self._asker.request(RTM_DELNEIGH, NLM_F_ACK, pack_neighbour(ifindex, address))
