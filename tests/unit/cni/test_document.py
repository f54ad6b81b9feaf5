# SPDX-License-Identifier: Apache-2.0
"""pycni/cni/document.py: JSON as Go reads it."""

import pytest

from pycni.cni.document import decode, pick
from pycni.cni.plugin import STDIN_LIMIT
from pycni.errors import DecodingError


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="space only"),
        pytest.param(b"{nope", id="cut off"),
        pytest.param(b"{}{}", id="two documents"),
        pytest.param(b"{} xx", id="bytes behind it"),
        pytest.param(b'{"mtu": NaN}', id="not a number"),
        pytest.param(b'{"mtu": -Infinity}', id="infinity"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b"9" * 5000, id="a number of too many digits"),
        pytest.param(b"{'a': 1}", id="single quotes"),
    ],
)
def test_what_go_would_refuse_is_refused(text):
    with pytest.raises(DecodingError, match=r"^stdin is"):
        decode(text, what="stdin")


def test_too_much_text_is_refused():
    with pytest.raises(DecodingError, match="over the limit"):
        decode(b" " * (STDIN_LIMIT + 1), what="stdin")


def test_bytes_that_are_not_utf_8_are_replaced():
    assert decode(b'{"a": "\xff"}', what="stdin") == {"a": "\ufffd"}


def test_of_two_equal_keys_the_last_wins():
    assert decode(b'{"a": 1, "a": 2}', what="stdin") == {"a": 2}


@pytest.mark.parametrize(
    ("document", "picked"),
    [
        pytest.param({"cniVersion": "1.0.0"}, {"cniVersion": "1.0.0"}, id="exact"),
        pytest.param({"CNIVERSION": "1.0.0"}, {"cniVersion": "1.0.0"}, id="other case"),
        pytest.param(
            {"cniVersion": "1.0.0", "CNIVersion": "9"}, {"cniVersion": "1.0.0"}, id="exact wins"
        ),
        pytest.param({"cniVersion": None}, {}, id="null is absent"),
        pytest.param({}, {}, id="absent"),
        pytest.param({"other": 1}, {}, id="unknown keys"),
    ],
)
def test_keys_are_picked_without_regard_to_case(document, picked):
    assert pick(document, ("cniVersion",)) == picked
