"""Records of the ring buffer, as rows."""

from __future__ import annotations

import pytest

from pycni.dataplane.dumps import DROP_EVENT, EVENT, DropEvent, Names, read_event

NAMES = Names({1: "to_container"}, {5: "multicast"})
DROP, VERSION, OTHER = 1, 1, 7
SIZE = DROP_EVENT.size
PACKET = bytes(range(20))


def record(*, kind: int = DROP, version: int = VERSION, size: int = SIZE) -> bytes:
    head = EVENT.pack(kind, version, size)
    return DROP_EVENT.pack(head, 1_000, 42, 60, 1, 5, len(PACKET), PACKET)


def test_a_drop_is_read_with_its_names() -> None:
    event = read_event(record(), NAMES)

    assert event == DropEvent(1_000, 42, 60, "to_container", "multicast", PACKET)


@pytest.mark.parametrize(
    "unknown",
    [
        record(kind=OTHER),
        record(version=OTHER),
        record(size=SIZE - 8),
        record()[:-1],
        EVENT.pack(OTHER, VERSION, EVENT.size),
        bytes(EVENT.size - 1),
        b"",
    ],
    ids=["kind", "version", "length", "cut", "without a body", "cut head", "empty"],
)
def test_what_is_not_known_is_skipped(unknown: bytes) -> None:
    assert read_event(unknown, NAMES) is None
