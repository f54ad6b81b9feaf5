"""pycni/kernel/conntrack.py: an entry that cannot be deleted; the rest is in test_host_ports.py."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError as Refusal

from pycni.kernel import conntrack
from pycni.kernel.netlink import FAMILIES, NetlinkError

ORIGINAL = {
    "CTA_TUPLE_IP": {"CTA_IP_V4_SRC": "192.0.2.1", "CTA_IP_V4_DST": "192.0.2.2"},
    "CTA_TUPLE_PROTO": {
        "CTA_PROTO_NUM": 17, "CTA_PROTO_SRC_PORT": 4711, "CTA_PROTO_DST_PORT": 53,
    },
}  # fmt: skip


class Table:
    def __init__(self, number: int) -> None:
        self.number = number

    def entry(self, _command: str, **_: Any) -> None:
        raise Refusal(self.number)


def test_an_entry_that_timed_out_meanwhile_is_no_error() -> None:
    conntrack._delete_entry(Table(errno.ENOENT), FAMILIES[4], ORIGINAL)


def test_another_refusal_is_raised_as_ours() -> None:
    with pytest.raises(NetlinkError) as caught:
        conntrack._delete_entry(Table(errno.EPERM), FAMILIES[4], ORIGINAL)

    assert caught.value.errno == errno.EPERM
