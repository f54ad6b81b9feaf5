# SPDX-License-Identifier: Apache-2.0
"""Sets as the kernel tells of them; the user data is what releases of nft wrote."""

from __future__ import annotations

import errno

import pytest

from pycni.kernel import nft_sets, nft_tables
from pycni.kernel.netlink import NetlinkError, attribute, text
from pycni.kernel.nft_sets import NFTA_SET_NAME, NFTA_SET_TABLE, NFTA_SET_USERDATA, NamedSet

INET = bytes((1, 0, 0, 0))
"""struct nfgenmsg."""
USER_DATA = {
    "set, by type, of 1.0.6": "000402000000",
    "set, by typeof, of both": "0004020000000314000407000000010c00040c00000001040b000000",
    "map, concatenated, of 1.0.6": "000400000000010400000000030800040d0000000100040800040d000000"
    "0100060400000000",
    "map, concatenated, of 1.1.3": "000400000000010400000000031200040d000000010a0000000404000000"
    "0100041200040d000000010a00000004040000000100060400000000",
    "map of verdicts, by typeof": "0004020000000104000000000314000407000000010c00040c0000000104"
    "0b00000004080004010000000100060400000000",
    "none": "",
    "cut": "000402000000031400040400",
}
DEMANDING = {
    "set, by type, of 1.1.3": "00040200000003080004040000000100",
    "map of verdicts, by type": "000402000000010400000000030800040400000001000408000404000000"
    "0100060400000000",
    "map of verdicts, concatenated": "000400000000010400000000031200040d000000010a0000000404000000"
    "010004080004040000000100060400000000",
    "of a kind to come": "000402000000030800041f0000000100",
}


class Asker:
    """A netfilter that has these sets."""

    def __init__(self, answer: list[bytes] | OSError) -> None:
        self.answer = answer
        self.asked = b""

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        assert kind == nft_sets.GET_SET
        self.asked = body
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def close(self) -> None: ...


def listed(name: str, user_data: str) -> bytes:
    return (
        INET
        + text(NFTA_SET_TABLE, "filter")
        + text(NFTA_SET_NAME, name)
        + attribute(NFTA_SET_USERDATA, bytes.fromhex(user_data))
    )


@pytest.fixture
def asker(monkeypatch: pytest.MonkeyPatch) -> Asker:
    sets = USER_DATA | DEMANDING
    made = Asker([listed(name, user_data) for name, user_data in sets.items()])
    monkeypatch.setattr(nft_tables, "open_asker", lambda: made)
    return made


def test_sets_that_stand_for_plain_values_are_demanding(asker: Asker) -> None:
    found = nft_sets.demanding()

    assert found == [NamedSet("inet", "filter", name) for name in DEMANDING]
    assert str(found[0]) == "set set, by type, of 1.1.3 of table inet filter"
    assert asker.asked == bytes(4)


def test_the_kernel_is_asked_for_one_tables_sets(asker: Asker) -> None:
    nft_sets.demanding(("ip6", "mine"))

    assert asker.asked == bytes((10, 0, 0, 0)) + text(NFTA_SET_TABLE, "mine")


def test_a_table_that_is_gone_has_no_sets(asker: Asker) -> None:
    asker.answer = NetlinkError(errno.ENOENT)

    assert nft_sets.demanding(("inet", "mine")) == []

    asker.answer = NetlinkError(errno.EPERM)
    with pytest.raises(OSError, match="not permitted"):
        nft_sets.demanding()
