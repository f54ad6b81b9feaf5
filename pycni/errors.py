# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors: each has the CNI code a runtime is told, and a hint of what to do.

    PycniError                 999  anything without a better code
    ├── IncompatibleVersion      1  cniVersion unknown, or too old for the verb
    ├── UnknownContainer         3  CHECK of something never attached
    ├── InvalidParameter         4  a CNI_* variable is missing or wrong
    ├── FileError                5  a file, directory or pipe cannot be read or written
    ├── DecodingError            6  stdin, or the prevResult in it, cannot be decoded
    ├── InvalidConfig            7  decoded, but a value is wrong
    │   ├── InvalidSettings         the node's settings file
    │   ├── ClusterError            cluster parameters that do not fit each other or the underlay
    │   ├── InvalidPool             a pod CIDR without room
    │   └── MissingPlugin           ipam.type names no plugin that can be executed
    ├── InvalidNetns             8  CNI_NETNS is no network namespace, or is the node's own
    ├── TryAgain                11  locked, or the agent is restarting
    ├── NotAvailable            50  pycni is not set up on this node
    │   ├── LimitedConnectivity 51  and pods of this node cannot reach all they should
    │   ├── NotPermitted            the caller is not root, or root without a capability
    │   ├── BirdError               BIRD is not there, or refuses what it is told
    │   └── StoreError              the cluster store does not answer
    │       ├── NameTaken           another machine has the node's name
    │       ├── PlaceLost           the networks of the node's pods are its own no more
    │       └── PoolFull                no block is left in the cluster's pools
    ├── InterfaceExists        100  somebody else's interface has the name
    ├── DuplicateAttachment    101  a second ADD of a live attachment
    ├── PoolExhausted          102  no address left
    ├── HostPortTaken          103  another pod has the host port
    ├── AddressUnavailable     104  an address that was asked for is another's
    ├── CheckMismatch          105  CHECK found a difference
    ├── GarbageLeft            106  GC could not remove everything
    ├── DataplaneError         107  a program cannot be loaded or attached
    │   └── SetupError              a part of the node's setup
    ├── NoLauncher                  the plugin's launcher cannot be compiled; `install` goes on
    ├── DelegateFailed         108  an IPAM plugin failed without saying why
    └── DelegateError            ?  an IPAM plugin's own error, with its own code

Codes: CNI spec 1.0.0, section 5 "Error"; 8 and 999 are libcni's and skel's; 100 and up are ours.
Only the plugin and the CLI print errors.
"""

from __future__ import annotations

import re
from typing import ClassVar

SWALLOWED = re.compile("not found|no such file or directory", re.IGNORECASE)
"""containerd takes a failed DEL whose text has one of these for a success: the address leaks."""


class PycniError(Exception):
    """What went wrong (`message`), what was found (`details`) and what to do (`hint`)."""

    code: ClassVar[int] = 999

    def __init__(self, message: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint

    def to_json(self, cni_version: str) -> dict[str, str | int]:
        """The CNI error object (CNI spec, section 5 "Error"); the hint ends `details`.

        `details` is a string and is left out when empty: libcni cannot read anything else.
        """
        document: dict[str, str | int] = {
            "cniVersion": cni_version,
            "code": self.code,
            "msg": speakable(self.message),
        }
        if details := "; ".join(part for part in (self.details, self.hint) if part):
            document["details"] = speakable(details)
        return document


class IncompatibleVersion(PycniError):
    """The configuration's cniVersion is unknown, or does not allow what was asked."""

    code = 1


class UnknownContainer(PycniError):
    """CHECK of an attachment that does not exist."""

    code = 3


class InvalidParameter(PycniError):
    """A CNI_* environment variable is missing or has a bad value; the message names it."""

    code = 4


class FileError(PycniError):
    """A file, directory or pipe cannot be read or written; the message names it."""

    code = 5


class DecodingError(PycniError):
    """Text from outside is not what its format says."""

    code = 6


class InvalidConfig(PycniError):
    """A configuration was decoded, but a value in it is wrong; the message names key and value."""

    code = 7


class InvalidSettings(InvalidConfig):
    """The node's settings file is wrong."""

    problems: tuple[str, ...] = ()
    """Each thing that is wrong in the file, where the message is about several."""


class ClusterError(InvalidConfig):
    """Cluster parameters do not fit each other, or do not fit the underlay."""


class InvalidPool(InvalidConfig):
    """A pod CIDR has no room for a gateway and a pod."""


class MissingPlugin(InvalidConfig):
    """The plugin that `ipam.type` names cannot be executed: it has done nothing."""


class InvalidNetns(PycniError):
    """CNI_NETNS is no network namespace, or is the node's own."""

    code = 8


class TryAgain(PycniError):
    """Something holds a lock or is restarting; the same call may succeed later."""

    code = 11


class NotAvailable(PycniError):
    """pycni cannot serve on this node as it is."""

    code = 50


class LimitedConnectivity(NotAvailable):
    """pycni cannot serve on this node, and pods of this node cannot reach all they should."""

    code = 51


class NotPermitted(NotAvailable):
    """The caller may not do this; the message names the capability that is missing."""


class BirdError(NotAvailable):
    """BIRD does not answer at its socket, or refuses what it is told."""


class StoreError(NotAvailable):
    """The cluster store does not answer, or refuses this node."""


class NameTaken(StoreError):
    """Another machine, which is alive, has the name."""


class PlaceLost(StoreError):
    """The store has no place for this node, or another one than its pods live in."""


class PoolFull(StoreError):
    """No block is left for the node in the cluster's pools, or no pool is for it."""


class InterfaceExists(PycniError):
    """An interface that is not ours has the name an attachment needs."""

    code = 100


class DuplicateAttachment(PycniError):
    """A second ADD of a live attachment; the first is untouched."""

    code = 101


class PoolExhausted(PycniError):
    """No address is left in a pod CIDR."""

    code = 102


class HostPortTaken(PycniError):
    """Another pod of this node has the host port; that pod is untouched."""

    code = 103


class AddressUnavailable(PycniError):
    """An address that was asked for, or that an IPAM plugin gave, cannot be this pod's."""

    code = 104


class CheckMismatch(PycniError):
    """CHECK found something missing or changed."""

    code = 105


class GarbageLeft(PycniError):
    """GC removed what it could; the details say what is left."""

    code = 106


class DataplaneError(PycniError):
    """A program or map cannot be loaded, attached or reached."""

    code = 107


class SetupError(DataplaneError):
    """A part of the node's setup cannot be made."""


class NoLauncher(PycniError):
    """No C compiler can compile the launcher; `install` goes on without a launcher."""


class DelegateFailed(PycniError):
    """An IPAM plugin failed, and what it said is no error of the CNI specification."""

    code = 108


class DelegateError(PycniError):
    """An error that an IPAM plugin reported: passed on as it is, code, message and details."""

    def __init__(self, code: int, message: str, *, details: str = "") -> None:
        super().__init__(message, details=details)
        self.reported_code = code

    def to_json(self, cni_version: str) -> dict[str, str | int]:
        document: dict[str, str | int] = {
            "cniVersion": cni_version,
            "code": self.reported_code,
            "msg": self.message,
        }
        if self.details:
            document["details"] = self.details
        return document


def speakable(text: str) -> str:
    """`text` without the phrases a runtime reads as success (`SWALLOWED`)."""
    return SWALLOWED.sub("missing", text)
