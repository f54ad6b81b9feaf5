# SPDX-License-Identifier: Apache-2.0
"""pycni/stores/places.py: what a machine that registers gets; test_stores.py has the refusals."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.errors import PlaceLost, StoreError
from pycni.stores import Former, Liveness, NodeRecord
from pycni.stores.places import Applicant, owner, place
from pycni.stores.records import Raw, write
from pycni.stores.roster import Roster
from unit.stores.stores_in_tests import CLUSTER, MACHINE_ONE, MACHINE_TWO, TINY_CLUSTER, VTEP_THREE

ONE = NodeRecord("one", 1, ip_address("192.0.2.1"), (ip_network("10.244.0.0/24"),))
TWO = NodeRecord("two", 2, ip_address("192.0.2.2"), (ip_network("10.244.1.0/24"),))
ADDRESS = ip_network("10.215.0.33/32")
ALIVE = {"one": Liveness(alive=True), "two": Liveness(alive=True)}
NEWCOMER = Applicant("three", VTEP_THREE, MACHINE_TWO)


def roster_of(*records: NodeRecord) -> Roster:
    cluster = replace(CLUSTER, cidrs=CLUSTER.cidrs[:1])
    raws = {
        record.name: Raw(write(record, MACHINE_ONE), order=at) for at, record in enumerate(records)
    }
    return Roster(cluster, raws)


def test_the_first_gap_is_given() -> None:
    third = replace(TWO, name="third", node_id=3, pod_cidrs=(ip_network("10.244.2.0/24"),))

    record = place(NEWCOMER, roster_of(ONE, third), liveness=ALIVE)

    assert (record.node_id, record.pod_cidrs) == (2, TWO.pod_cidrs)


def test_a_machine_whose_record_is_gone_gets_what_it_had() -> None:
    """And not the first gap: its pods may live there."""
    had = Former((ip_network("10.244.7.0/24"),))

    record = place(replace(NEWCOMER, had=had), roster_of(ONE, TWO), liveness=ALIVE)

    assert record.pod_cidrs == had.pod_cidrs


@pytest.mark.parametrize("cidr", [TWO.pod_cidrs[0], "10.244.0.0/23", "10.99.0.0/24"])
def test_what_it_had_is_not_given_if_it_is_anothers_or_of_another_cluster(cidr: str) -> None:
    had = Former((ip_network(cidr),))

    record = place(replace(NEWCOMER, had=had), roster_of(ONE, TWO), liveness=ALIVE)

    assert record.pod_cidrs == (ip_network("10.244.2.0/24"),)


def test_a_machine_with_pods_is_refused_if_its_place_is_anothers() -> None:
    applicant = replace(NEWCOMER, had=Former(TWO.pod_cidrs, stays=True))

    with pytest.raises(PlaceLost, match=r"gives this node 10\.244\.2\.0/24, but its pods"):
        place(applicant, roster_of(ONE, TWO), liveness=ALIVE)


def test_a_node_keeps_what_it_published() -> None:
    published = replace(ONE, extra=(ADDRESS,))
    same = Applicant("one", VTEP_THREE, MACHINE_ONE)

    assert place(same, roster_of(published), liveness=ALIVE) == replace(published, vtep=VTEP_THREE)


def test_a_node_that_lost_its_place_to_a_senior_gets_another() -> None:
    loser = replace(TWO, node_id=ONE.node_id, pod_cidrs=ONE.pod_cidrs, extra=(ADDRESS,))
    roster = roster_of(replace(ONE, extra=(ADDRESS,)), loser)
    assert list(roster.rejected) == ["two"]

    again = place(Applicant("two", TWO.vtep, MACHINE_ONE), roster, liveness=ALIVE)

    assert again == TWO


def test_a_machine_whose_identity_was_not_readable_may_register_again() -> None:
    unreadable = write(ONE, MACHINE_ONE) | {"identity": None}
    roster = roster_of(TWO)
    roster.change({"one": Raw(unreadable)})

    assert place(Applicant("one", ONE.vtep, MACHINE_TWO), roster, liveness=ALIVE) == ONE


def test_the_vtep_that_a_node_has_is_not_refused_because_a_bad_record_has_it_too() -> None:
    roster = roster_of(ONE, TWO)
    roster.change({"evil": Raw(write(replace(ONE, name="evil"), "evil"), order=9)})

    same = Applicant("one", ONE.vtep, MACHINE_ONE)

    assert place(same, roster, liveness=ALIVE) == ONE


def test_an_address_that_another_published_is_refused_as_a_vtep() -> None:
    applicant = Applicant("three", ip_address("10.215.0.33"), MACHINE_TWO)

    with pytest.raises(StoreError, match="is already that of node one, which is alive"):
        place(applicant, roster_of(replace(ONE, extra=(ADDRESS,))), liveness=ALIVE)


def test_a_name_that_nodes_cannot_have_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot be registered: its name is not a DNS name"):
        place(Applicant("Three", VTEP_THREE, MACHINE_TWO), roster_of(), liveness={})


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("10.215.0.33/32", "one"), ("192.0.2.2/32", "two"), ("10.244.1.9/32", "two"),
     ("10.244.2.9/32", ""), ("2001:db8::1/128", "")],
)  # fmt: skip
def test_an_address_belongs_to_whom_published_it_or_has_it_or_the_cidr_around_it(
    prefix: str, name: str
) -> None:
    roster = roster_of(replace(ONE, extra=(ADDRESS,)), TWO)

    assert owner(roster, ip_network(prefix)) == name


def test_an_address_belongs_to_a_valid_record_before_one_that_is_set_aside() -> None:
    loser = replace(TWO, name="a-loser", node_id=ONE.node_id, extra=(ADDRESS,))

    assert owner(roster_of(replace(ONE, extra=(ADDRESS,)), loser), ADDRESS) == "one"


def test_a_bad_record_does_not_use_up_the_cluster() -> None:
    roster = Roster(TINY_CLUSTER, {"one": Raw(write(ONE, MACHINE_ONE))})
    greedy = write(ONE, "evil") | {"node_id": 9, "pod_cidrs": ["10.244.0.0/23", "10.244.0.0/22"]}
    roster.change({"evil": Raw(greedy)})

    record = place(NEWCOMER, roster, liveness=ALIVE)

    assert record.pod_cidrs == (ip_network("10.244.1.0/24"),)


def test_a_further_block_of_a_node_is_given_to_no_other() -> None:
    record = place(NEWCOMER, roster_of(replace(ONE, blocks=TWO.pod_cidrs)), liveness=ALIVE)

    assert record.pod_cidrs == (ip_network("10.244.2.0/24"),)


def test_an_address_in_a_further_block_is_that_nodes() -> None:
    roster = roster_of(replace(ONE, blocks=(ip_network("10.244.7.0/24"),)))

    assert owner(roster, ip_network("10.244.7.9/32")) == "one"
