# SPDX-License-Identifier: Apache-2.0
"""Which records are valid beside each other, and what each change makes of that."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.stores import Liveness, NodeRecord, Put, Rejected, Removed
from pycni.stores.records import Raw, write
from pycni.stores.roster import Roster
from unit.stores.stores_in_tests import CLUSTER

ADDRESS = ip_network("10.215.0.33/32")


def node(name: str, number: int) -> NodeRecord:
    cidrs = (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:10:244:{number:x}::/64"))
    return NodeRecord(name, number, ip_address("192.0.2.0") + number, cidrs)


ONE, TWO, THREE = (node(name, number) for number, name in enumerate(("one", "two", "three"), 1))


def raw(record: NodeRecord, *, order: int) -> Raw:
    return Raw(write(record, "machine"), order)


def roster_of(*records: NodeRecord) -> Roster:
    """They were there in this order."""
    return Roster(
        CLUSTER, {record.name: raw(record, order=at) for at, record in enumerate(records)}
    )


def test_records_that_claim_different_things_are_all_valid() -> None:
    roster = roster_of(ONE, TWO, THREE)

    assert roster.nodes == {"one": ONE, "two": TWO, "three": THREE}
    assert roster.rejected == {}


def test_a_bad_record_is_set_aside_and_the_others_are_not() -> None:
    roster = roster_of(ONE)

    events = roster.change({"bad": Raw(None), "two": raw(TWO, order=9)})

    assert events == [Rejected("bad", "it is not a JSON object"), Put("two", TWO)]
    assert roster.nodes == {"one": ONE, "two": TWO}


def test_removing_a_bad_record_leaves_the_good_ones() -> None:
    roster = roster_of(ONE, TWO)
    roster.change({"twin": raw(replace(TWO, name="twin"), order=9)})

    assert roster.change({"twin": None}) == [Removed("twin")]
    assert roster.nodes == {"one": ONE, "two": TWO}
    assert roster.rejected == {}


def test_a_record_that_is_mended_is_valid_again() -> None:
    roster = roster_of(ONE)
    roster.change({"two": Raw(None)})

    assert roster.change({"two": raw(TWO, order=9)}) == [Put("two", TWO)]
    assert roster.rejected == {}


def test_a_record_that_goes_bad_is_set_aside() -> None:
    roster = roster_of(ONE, TWO)

    events = roster.change({"two": raw(replace(TWO, vtep=ip_address("127.0.0.1")), order=1)})

    (rejected,) = events
    assert isinstance(rejected, Rejected)
    assert roster.nodes == {"one": ONE}


def test_a_bad_record_that_stays_as_bad_is_no_event() -> None:
    roster = roster_of(ONE)
    roster.change({"bad": Raw(None)})

    assert roster.change({"bad": Raw([])}) == []


def test_a_record_that_is_bad_for_another_reason_is_an_event() -> None:
    roster = roster_of(ONE)
    roster.change({"bad": Raw(None)})

    assert roster.change({"bad": Raw({})}) == [
        Rejected("bad", "its node_id is missing, not a number from 1 to 4294967295")
    ]


def test_a_record_that_stays_the_same_is_no_event() -> None:
    roster = roster_of(ONE, TWO)

    assert roster.change({"two": raw(TWO, order=1)}) == []


def test_a_record_that_never_was_and_is_not_is_no_event() -> None:
    assert roster_of(ONE).change({"nobody": None}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": ONE.node_id},
        {"vtep": ONE.vtep},
        {"pod_cidrs": ONE.pod_cidrs},
        {"pod_cidrs": (TWO.pod_cidrs[0], ONE.pod_cidrs[1])},
        {"extra": (ADDRESS,)},
        {"extra": (ip_network("10.244.1.77/32"),)},
        {"extra": (ip_network("fd00:10:244:1::77/128"),)},
        {"extra": (ip_network("192.0.2.1/32"),)},
    ],
)
def test_of_two_that_claim_the_same_the_one_that_was_there_first_counts(
    change: dict[str, object],
) -> None:
    one, two = replace(ONE, extra=(ADDRESS,)), replace(TWO, **change)

    roster = roster_of(one, two)

    assert roster.nodes == {"one": one}
    assert " one" in roster.rejected["two"]
    assert roster.change({"one": None}) == [Removed("one"), Put("two", two)]


def test_an_address_published_before_keeps_its_cidr_from_a_later_node() -> None:
    one = replace(ONE, extra=(ip_network("10.244.2.77/32"),))

    roster = roster_of(one, TWO)

    assert roster.nodes == {"one": one}
    assert roster.rejected == {
        "two": "its pod CIDR 10.244.2.0/24 overlaps 10.244.2.77/32, which one published"
    }


def test_without_an_order_the_lower_id_counts() -> None:
    twin = replace(TWO, name="a-twin", vtep=ONE.vtep)

    roster = Roster(CLUSTER, {"a-twin": raw(twin, order=0), "one": raw(ONE, order=0)})

    assert roster.nodes == {"one": ONE}


def test_a_record_that_is_bad_by_itself_pushes_nobody_aside() -> None:
    roster = Roster(CLUSTER, {"one": raw(ONE, order=5)})
    evil = write(replace(ONE, name="evil", extra=(ADDRESS,)), "machine") | {"identity": None}

    roster.change({"evil": Raw(evil, order=1)})

    assert roster.nodes == {"one": ONE}


def test_one_that_lost_to_a_loser_counts() -> None:
    first, second = ONE, replace(TWO, vtep=ONE.vtep)
    third = replace(THREE, node_id=TWO.node_id)

    roster = roster_of(first, second, third)

    assert roster.nodes == {"one": first, "three": third}
    assert roster.change({"one": None}) == [
        Removed("one"),
        Rejected("three", "its id 2 is that of two"),
        Put("two", second),
    ]


def test_a_senior_that_comes_to_claim_what_a_junior_has_takes_it() -> None:
    roster = roster_of(ONE, TWO)

    events = roster.change({"one": raw(replace(ONE, vtep=TWO.vtep), order=0)})

    assert events == [
        Rejected("two", "its VTEP 192.0.2.2 is that of one"),
        Put("one", replace(ONE, vtep=TWO.vtep)),
    ]


def test_nodes_may_change_places_in_one_go() -> None:
    roster = roster_of(ONE, TWO)
    swapped = [replace(ONE, vtep=TWO.vtep), replace(TWO, vtep=ONE.vtep)]

    events = roster.change({record.name: raw(record, order=7) for record in swapped})

    assert events == [Put("one", swapped[0]), Put("two", swapped[1])]


def test_what_a_node_had_is_free_when_it_is_gone() -> None:
    roster = roster_of(ONE, TWO)
    heir = replace(ONE, name="heir")

    assert roster.change({"one": None, "heir": raw(heir, order=9)}) == [
        Removed("one"),
        Put("heir", heir),
    ]


def test_names_in_events_and_listings_are_printable() -> None:
    roster = roster_of(ONE)

    (rejected,) = roster.change({"\x1b[2J\n": raw(TWO, order=3)})

    assert rejected == Rejected("\\x1b[2J\\n", "its name is not a DNS name in lower case")
    assert list(roster.listing({}).rejected) == ["\\x1b[2J\\n"]
    assert roster.change({"\x1b[2J\n": None}) == [Removed("\\x1b[2J\\n")]


def test_a_listing_has_the_valid_and_the_rejected_by_name() -> None:
    roster = roster_of(TWO, ONE)
    roster.change({"bad": Raw(None)})

    listing = roster.listing({"one": Liveness(alive=True, seen_ago=3.0)})

    assert listing.nodes == (ONE, TWO)
    assert listing.rejected == {"bad": "it is not a JSON object"}
    assert listing.liveness == {
        "bad": Liveness(alive=False),
        "one": Liveness(alive=True, seen_ago=3.0),
        "two": Liveness(alive=False),
    }
    assert listing.summary == "bad: it is not a JSON object"


def test_a_summary_names_a_few_and_counts_the_rest() -> None:
    roster = roster_of(ONE)
    assert roster.listing({}).summary == "all records are valid"

    roster.change({f"bad-{number}": Raw(None) for number in range(5)})

    reason = "it is not a JSON object"
    assert roster.listing({}).summary == (
        f"bad-0: {reason}; bad-1: {reason}; bad-2: {reason}; and 2 more"
    )


def test_where_the_newer_has_the_vtep_the_older_is_set_aside_until_it_goes() -> None:
    heir = replace(TWO, vtep=ONE.vtep)
    roster = Roster(CLUSTER, {"one": raw(ONE, order=0)}, newer_has_vtep=True)

    assert roster.change({"two": raw(heir, order=1)}) == [
        Rejected("one", "its VTEP 192.0.2.1 is that of two, which is newer"),
        Put("two", heir),
    ]
    assert roster.change({"two": None}) == [Removed("two"), Put("one", ONE)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pod_cidrs": ONE.pod_cidrs}, "its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of one"),
        ({"node_id": ONE.node_id}, "its id 1 is that of one"),
        ({"pod_cidrs": THREE.pod_cidrs}, "its pod CIDR 10.244.3.0/24 overlaps 10.244.3.0/24 of th"),
        ({"identity": None}, "its identity is missing"),
    ],
)
def test_a_newer_record_that_claims_more_than_a_vtep_of_another_pushes_nobody_aside(
    change: dict[str, object], reason: str
) -> None:
    records = {"one": raw(ONE, order=0), "three": raw(THREE, order=1)}
    roster = Roster(CLUSTER, records, newer_has_vtep=True)
    evil = write(replace(TWO, vtep=ONE.vtep), "machine") | {
        key: [str(one) for one in value] if isinstance(value, tuple) else value
        for key, value in change.items()
    }

    roster.change({"two": Raw(evil, order=2)})

    assert roster.nodes == {"one": ONE, "three": THREE}
    assert roster.rejected["two"].startswith(reason)


def test_an_address_that_a_node_published_is_no_vtep_of_a_newer_one() -> None:
    one = replace(ONE, extra=(ip_network("192.0.2.2/32"),))
    roster = Roster(CLUSTER, {"one": raw(one, order=0)}, newer_has_vtep=True)

    roster.change({"two": raw(TWO, order=1)})

    assert roster.nodes == {"one": one}


def test_a_senior_record_cannot_publish_others_networks_away() -> None:
    evil = replace(ONE, extra=(ip_network("10.244.2.1/32"), ip_network("10.244.3.1/32")))
    records = {"one": raw(evil, order=0), "two": raw(TWO, order=1), "three": raw(THREE, order=2)}

    roster = Roster(CLUSTER, records, extra_in_cluster=False)

    assert roster.nodes == {"two": TWO, "three": THREE}
    reason = (
        "the address that it published overlaps 10.244.2.0/24, 10.244.3.0/24, for pods of nodes"
    )
    assert roster.rejected == {"one": reason}
    assert roster.change({"one": raw(ONE, order=0)}) == [Put("one", ONE)]


@pytest.mark.parametrize("newer_has_vtep", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_the_answer_depends_on_the_records_and_not_on_how_they_came(
    seed: int, newer_has_vtep: bool
) -> None:
    """Random changes one by one and in batches, against the same records read at once."""
    source = random.Random(seed)
    followed: dict[str, NodeRecord | str] = {}
    roster = Roster(CLUSTER, newer_has_vtep=newer_has_vtep)
    stored: dict[str, Raw] = {}

    for step in range(60):
        changes = {
            f"n{source.randrange(8)}": _random_record(source, step)
            for _ in range(source.randrange(1, 4))
        }
        for event in roster.change(changes):
            match event:
                case Put(name, record):
                    followed[name] = record
                case Rejected(name, reason):
                    followed[name] = reason
                case Removed(name):
                    del followed[name]
        stored = {name: one for name, one in (stored | changes).items() if one is not None}

        fresh = Roster(CLUSTER, stored, newer_has_vtep=newer_has_vtep)
        assert roster.nodes == fresh.nodes
        assert roster.rejected == fresh.rejected
        assert followed == fresh.nodes | fresh.rejected
        _expect_no_conflict(fresh)


def _random_record(source: random.Random, step: int) -> Raw | None:
    kind = source.randrange(10)
    if kind == 0:
        return None
    if kind == 1:
        return Raw(None, order=step)
    pick = source.choice
    record = NodeRecord(
        "",
        source.randrange(1, 6),
        ip_address("192.0.2.0") + source.randrange(1, 6),
        (
            ip_network(f"10.244.{source.randrange(5)}.0/24"),
            ip_network(f"fd00:10:244:{source.randrange(5)}::/64"),
        ),
        tuple({pick([ADDRESS, *_addresses(source)]) for _ in range(source.randrange(3))}),  # type: ignore[misc]
    )
    return Raw(write(record, "machine"), order=source.randrange(step + 1))


def _addresses(source: random.Random) -> list[object]:
    return [
        ip_network(f"10.244.{source.randrange(5)}.9/32"),
        ip_network(f"192.0.2.{source.randrange(1, 6)}/32"),
    ]


def _expect_no_conflict(roster: Roster) -> None:
    nodes = list(roster.nodes.values())
    for at, one in enumerate(nodes):
        for other in nodes[at + 1 :]:
            assert one.node_id != other.node_id
            ours = [*one.pod_cidrs, *one.extra, ip_network(one.vtep)]
            theirs = [*other.pod_cidrs, *other.extra, ip_network(other.vtep)]
            assert not any(
                mine.version == its.version and mine.overlaps(its)
                for mine in ours
                for its in theirs
            )


def test_a_further_block_is_held_by_the_node_that_had_it_first() -> None:
    block = ip_network("10.244.77.0/24")
    one, two = replace(ONE, blocks=(block,)), replace(TWO, blocks=(block,))

    roster = roster_of(one, two)

    assert roster.holder(block) == "one"
    assert roster.rejected == {"two": "its pod CIDR 10.244.77.0/24 overlaps 10.244.77.0/24 of one"}
    assert roster.change({"one": raw(ONE, order=0)}) == [Put("one", ONE), Put("two", two)]


def test_networks_of_a_record_keep_nothing_but_themselves() -> None:
    """A cluster has two for each node: what the library computes and keeps costs megabytes."""
    for record in roster_of(ONE, TWO).nodes.values():
        for network in record.networks:
            assert set(vars(network)) == {"network_address", "netmask", "_prefixlen"}


def test_who_only_follows_keeps_no_identities() -> None:
    following = Roster(CLUSTER, keeps_identity=False)
    record = raw(node("a", 1), order=1)

    following.change({"a": record})

    assert following.claims["a"].identity == ""
    assert following.read("a", record) == following.claims["a"]
    assert roster_of(node("a", 1)).claims["a"].identity != ""
