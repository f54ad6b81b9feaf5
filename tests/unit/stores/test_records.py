# SPDX-License-Identifier: Apache-2.0
"""Records as anybody may have written them: which are valid, and what is said of the others."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.stores import DIRECT, NodeRecord
from pycni.stores.etcd.keys import decode
from pycni.stores.records import (
    EXTRA_MAX,
    VALUE_MAX,
    Claim,
    Raw,
    conflict,
    named,
    printable,
    read,
    write,
)
from unit.stores.stores_in_tests import CLUSTER, TINY_CLUSTER

IDENTITY = "machine-one"
RECORD = NodeRecord(
    "node-one",
    1,
    ip_address("192.0.2.1"),
    (ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
    (ip_network("10.215.0.33/32"), ip_network("2001:db8:9::1/128")),
)
OTHER = NodeRecord(
    "node-two",
    2,
    ip_address("192.0.2.2"),
    (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
    (ip_network("10.215.0.34/32"),),
)
GOOD = write(RECORD, IDENTITY)
BLOCK = ip_network("10.244.7.0/24")


def claim_of(record: NodeRecord) -> Claim:
    return read(record.name, Raw(write(record, IDENTITY)), CLUSTER)


def test_what_was_written_is_read_back() -> None:
    claim = read(RECORD.name, Raw(json.loads(json.dumps(GOOD))), CLUSTER)

    assert claim.problem == ""
    assert claim.record == RECORD
    assert claim.identity == IDENTITY


def test_further_blocks_are_read_back_each_once() -> None:
    record = replace(RECORD, blocks=(BLOCK,))
    document = write(record, IDENTITY)

    assert claim_of(record).record == record
    assert read("n", Raw(document | {"blocks": [str(BLOCK)] * 2}), CLUSTER).blocks == (BLOCK,)
    assert read("n", Raw(document | {"blocks": document["pod_cidrs"]}), CLUSTER).blocks == ()
    assert "blocks" not in write(RECORD, IDENTITY)


def test_a_record_of_the_last_release_is_valid() -> None:
    stored = (
        '{"node_id": 1, "vtep": "192.0.2.1", "pod_cidrs": ["10.244.0.0/24", '
        '"fd00:10:244::/64"], "extra": ["10.215.0.33/32", "2001:db8:9::1/128"], '
        '"identity": "machine-one"}'
    )

    assert read(RECORD.name, Raw(decode(stored)), CLUSTER).record == RECORD
    assert json.dumps(GOOD) == stored


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red", "weights": [1, 2]},
        {"pod_cidrs": ["fd00:10:244::/64", "10.244.0.0/24"]},
        {"extra": ["10.215.0.33/32", "2001:db8:9::1/128", "10.215.0.33/32"]},
    ],
    ids=["fields of a later release", "families the other way round", "an address twice"],
)
def test_what_makes_no_difference_is_ignored(change: dict[str, object]) -> None:
    assert read(RECORD.name, Raw(GOOD | change), CLUSTER).record == RECORD


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, ".".join(["a" * 63] * 3 + ["a" * 61])])
def test_a_name_as_long_as_allowed_is_valid(name: str) -> None:
    assert read(name, Raw(GOOD), CLUSTER).problem == ""


def test_a_record_without_published_addresses_is_valid() -> None:
    document = {key: value for key, value in GOOD.items() if key != "extra"}

    assert read(RECORD.name, Raw(document), CLUSTER).record == replace(RECORD, extra=())


def test_a_record_with_the_nodes_own_addresses_is_valid() -> None:
    several = replace(RECORD, addresses=(RECORD.vtep, ip_address("2001:db8::1")))

    stored = json.dumps(write(several, IDENTITY))

    assert read(RECORD.name, Raw(decode(stored)), CLUSTER).record == several


def test_a_record_says_what_a_node_accepts() -> None:
    direct = replace(RECORD, accepts=(DIRECT,))

    document = write(direct, IDENTITY)

    assert document["accepts"] == ["vxlan", "direct"]
    assert read(RECORD.name, Raw(document), CLUSTER).record == direct


def test_a_record_of_before_accepts_nothing_but_vxlan() -> None:
    assert "accepts" not in write(RECORD, IDENTITY)
    assert read(RECORD.name, Raw(GOOD), CLUSTER).record.accepts == ()


def test_what_a_later_release_accepts_is_ignored() -> None:
    document = GOOD | {"accepts": ["vxlan", "wireguard", "direct"]}

    claim = read(RECORD.name, Raw(document), CLUSTER)

    assert (claim.problem, claim.record.accepts) == ("", (DIRECT,))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "7", "[" * 100_000, "\\xff"])
def test_what_is_not_a_json_object_is_not_valid(text: str) -> None:
    assert read("node-one", Raw(decode(text)), CLUSTER).problem == "it is not a JSON object"


NOT_UNICAST = "is not a unicast address that other nodes can reach"
BAD = [
    # the name
    ("", {}, "its name is not a DNS name in lower case"),
    ("Node", {}, "its name is not a DNS name in lower case"),
    ("node_1", {}, "its name is not a DNS name in lower case"),
    ("-node", {}, "its name is not a DNS name in lower case"),
    ("node..one", {}, "its name is not a DNS name in lower case"),
    ("node/one", {}, "its name is not a DNS name in lower case"),
    ("node\none", {}, "its name is not a DNS name in lower case"),
    ("n\N{LATIN SMALL LETTER O WITH DIAERESIS}de", {}, "its name is not a DNS name in lower case"),
    ("a" * 64, {}, "its name is not a DNS name in lower case"),
    (".".join(["a" * 61] * 5), {}, "its name is not a DNS name in lower case"),
    # the id
    ("n", {"node_id": None}, "its node_id is missing, not a number from 1 to 4294967295"),
    ("n", {"node_id": 0}, "its node_id is 0, not a number"),
    ("n", {"node_id": -1}, "its node_id is -1, not a number"),
    ("n", {"node_id": 2**32}, "its node_id is 4294967296, not a number"),
    ("n", {"node_id": 2**40}, "its node_id is 1099511627776, not a number"),
    ("n", {"node_id": True}, "its node_id is True, not a number"),
    ("n", {"node_id": 1.0}, "its node_id is 1.0, not a number"),
    ("n", {"node_id": "1"}, "its node_id is '1', not a number"),
    ("n", {"node_id": {}}, "its node_id is an object, not a number"),
    # the VTEP
    ("n", {"vtep": None}, "its VTEP is missing, not text"),
    ("n", {"vtep": 3221225985}, "its VTEP is 3221225985, not text"),
    ("n", {"vtep": "nowhere"}, "its VTEP 'nowhere' is not a valid one"),
    ("n", {"vtep": "192.0.2.1/32"}, "its VTEP '192.0.2.1/32' is not a valid one"),
    ("n", {"vtep": "192.0.2.01"}, "its VTEP '192.0.2.01' is not a valid one"),
    ("n", {"vtep": "::ffff:192.0.2.1"}, "is IPv4 written as IPv6 (v4-mapped)"),
    ("n", {"vtep": "::ffff:c000:201"}, "is IPv4 written as IPv6 (v4-mapped)"),
    ("n", {"vtep": "2001:DB8::1"}, "'2001:DB8::1' is not in the usual form, 2001:db8::1"),
    ("n", {"vtep": "2001:db8:0::1"}, "'2001:db8:0::1' is not in the usual form, 2001:db8::1"),
    ("n", {"vtep": "2001:db8::1%eth0"}, "its VTEP '2001:db8::1%eth0' has a zone"),
    ("n", {"vtep": "127.0.0.1"}, f"its VTEP 127.0.0.1 {NOT_UNICAST}"),
    ("n", {"vtep": "0.0.0.0"}, f"its VTEP 0.0.0.0 {NOT_UNICAST}"),
    ("n", {"vtep": "0.1.2.3"}, f"its VTEP 0.1.2.3 {NOT_UNICAST}"),
    ("n", {"vtep": "::192.0.2.1"}, "its VTEP '::192.0.2.1' is not in the usual form"),
    ("n", {"vtep": "::c000:201"}, f"its VTEP ::c000:201 {NOT_UNICAST}"),
    ("n", {"vtep": "64:ff9b::c000:201"}, f"its VTEP 64:ff9b::c000:201 {NOT_UNICAST}"),
    ("n", {"vtep": "224.0.0.1"}, f"its VTEP 224.0.0.1 {NOT_UNICAST}"),
    ("n", {"vtep": "169.254.1.1"}, f"its VTEP 169.254.1.1 {NOT_UNICAST}"),
    ("n", {"vtep": "240.0.0.1"}, f"its VTEP 240.0.0.1 {NOT_UNICAST}"),
    ("n", {"vtep": "255.255.255.255"}, f"its VTEP 255.255.255.255 {NOT_UNICAST}"),
    ("n", {"vtep": "::"}, f"its VTEP :: {NOT_UNICAST}"),
    ("n", {"vtep": "::1"}, f"its VTEP ::1 {NOT_UNICAST}"),
    ("n", {"vtep": "fe80::1"}, f"its VTEP fe80::1 {NOT_UNICAST}"),
    ("n", {"vtep": "ff02::1"}, f"its VTEP ff02::1 {NOT_UNICAST}"),
    ("n", {"vtep": "10.244.9.9"}, "its VTEP 10.244.9.9 is in the cluster CIDR 10.244.0.0/16"),
    # what it accepts
    ("n", {"accepts": "direct"}, "its accepts is 'direct', not a list"),
    ("n", {"accepts": [7]}, "it accepts 7, which is no word"),
    ("n", {"accepts": ["Direct\n"]}, r"it accepts 'Direct\n', which is no word"),
    ("n", {"accepts": ["x"] * 17}, "its accepts has 17 entries, more than 16"),
    # the node's own addresses
    ("n", {"addresses": "192.0.2.1"}, "its addresses is '192.0.2.1', not a list"),
    ("n", {"addresses": [7]}, "its address is 7, not text"),
    ("n", {"addresses": ["192.0.2.1/24"]}, "its address '192.0.2.1/24' is not a valid one"),
    ("n", {"addresses": ["::ffff:192.0.2.1"]}, "is IPv4 written as IPv6 (v4-mapped)"),
    ("n", {"addresses": ["fe80::1"]}, f"its address fe80::1 {NOT_UNICAST}"),
    ("n", {"addresses": ["127.0.0.1"]}, f"its address 127.0.0.1 {NOT_UNICAST}"),
    ("n", {"addresses": ["10.244.9.9"]}, "its address 10.244.9.9 is in the cluster CIDR"),
    ("n", {"addresses": ["192.0.2.1"] * 65}, "its addresses has 65 entries, more than 64"),
    # the pod CIDRs
    ("n", {"pod_cidrs": None}, "its pod_cidrs is missing, not a list"),
    ("n", {"pod_cidrs": "10.244.0.0/24"}, "its pod_cidrs is '10.244.0.0/24', not a list"),
    ("n", {"pod_cidrs": [7]}, "its pod CIDR is 7, not text"),
    ("n", {"pod_cidrs": [[]]}, "its pod CIDR is a list, not text"),
    ("n", {"pod_cidrs": ["10.244.0.7/24"]}, "its pod CIDR '10.244.0.7/24' is not a valid one"),
    ("n", {"pod_cidrs": ["10.244.0.0/255.255.255.0"]}, "is not in the usual form, 10.244.0.0/24"),
    ("n", {"pod_cidrs": ["10.244.0.0"]}, "is not in the usual form, 10.244.0.0/32"),
    ("n", {"pod_cidrs": ["::ffff:10.244.1.0/120"]}, "is IPv4 written as IPv6 (v4-mapped)"),
    ("n", {"pod_cidrs": ["fd00:10:244::%1/64"]}, "its pod CIDR 'fd00:10:244::%1/64' "),
    ("n", {"pod_cidrs": ["10.9.0.0/24"]}, "its pod CIDR 10.9.0.0/24 is not in the cluster's"),
    ("n", {"pod_cidrs": ["0.0.0.0/0"]}, "its pod CIDR 0.0.0.0/0 is not in the cluster's CIDRs"),
    ("n", {"pod_cidrs": ["10.0.0.0/8"]}, "its pod CIDR 10.0.0.0/8 is not in the cluster's CIDRs"),
    ("n", {"pod_cidrs": ["10.244.0.0/16"]}, "its pod CIDR 10.244.0.0/16 is not a /24"),
    ("n", {"pod_cidrs": ["10.244.0.0/25"]}, "its pod CIDR 10.244.0.0/25 is not a /24"),
    ("n", {"pod_cidrs": ["fd00:10:244::/65"]}, "its pod CIDR fd00:10:244::/65 is not a /64"),
    ("n", {"pod_cidrs": []}, "it has no IPv4 pod CIDR"),
    ("n", {"pod_cidrs": ["10.244.0.0/24"]}, "it has no IPv6 pod CIDR"),
    ("n", {"pod_cidrs": ["10.244.0.0/24", "10.244.1.0/24"]}, "more than one IPv4 pod CIDR"),
    ("n", {"pod_cidrs": ["10.244.0.0/24"] * 3}, "its pod_cidrs has 3 entries, more than 2"),
    # its further blocks
    ("n", {"blocks": "10.244.7.0/24"}, "its blocks is '10.244.7.0/24', not a list"),
    ("n", {"blocks": ["10.244.7.0/25"]}, "its pod CIDR 10.244.7.0/25 is not a /24"),
    ("n", {"blocks": ["10.9.7.0/24"]}, "its pod CIDR 10.9.7.0/24 is not in the cluster's"),
    ("n", {"blocks": [None]}, "its pod CIDR is missing, not text"),
    ("n", {"blocks": ["10.244.7.0/24"] * 65}, "its blocks has 65 entries, more than 64"),
    # what it published
    ("n", {"extra": "10.215.0.33/32"}, "its extra is '10.215.0.33/32', not a list"),
    ("n", {"extra": None}, "its extra is missing, not a list"),
    ("n", {"extra": [{}]}, "its published address is an object, not text"),
    ("n", {"extra": ["everywhere"]}, "its published address 'everywhere' is not a valid one"),
    ("n", {"extra": ["10.215.0.0/24"]}, "10.215.0.0/24 is a network, not one address"),
    ("n", {"extra": ["0.0.0.0/0"]}, "0.0.0.0/0 is a network, not one address"),
    ("n", {"extra": ["::ffff:10.215.0.33/128"]}, "is IPv4 written as IPv6 (v4-mapped)"),
    ("n", {"extra": ["127.0.0.1/32"]}, "its published address 127.0.0.1/32 cannot be a pod's"),
    ("n", {"extra": ["ff02::1/128"]}, "its published address ff02::1/128 cannot be a pod's"),
    ("n", {"extra": ["0.1.2.3/32"]}, "its published address 0.1.2.3/32 cannot be a pod's"),
    ("n", {"extra": ["240.1.2.3/32"]}, "its published address 240.1.2.3/32 cannot be a pod's"),
    ("n", {"extra": ["64:ff9b::1/128"]}, "its published address 64:ff9b::1/128 cannot be a pod's"),
    ("n", {"extra": ["192.0.2.1/32"]}, "its published address 192.0.2.1/32 is its VTEP"),
    ("n", {"extra": ["10.9.9.9/32"] * 1025}, "its extra has 1025 entries, more than 1024"),
    # whose it is
    ("n", {"identity": "x" * 129}, "is none that pycni writes"),
    ("n", {"identity": "\x1b[31m"}, "its identity '\\x1b[31m' is none that pycni writes"),
    ("n", {"identity": None}, "its identity is missing, not text"),
    ("n", {"identity": 7}, "its identity is 7, not text"),
]


@pytest.mark.parametrize(("name", "change", "reason"), BAD)
def test_a_bad_record_is_not_valid_and_says_why(
    name: str, change: dict[str, object], reason: str
) -> None:
    problem = read(name, Raw(GOOD | change), CLUSTER).problem

    assert reason in problem
    assert problem.isascii()
    assert problem.isprintable()


@pytest.mark.parametrize("field", ["vtep", "pod_cidrs", "extra", "node_id", "identity"])
@pytest.mark.parametrize(
    "value", ["\x1b[31m\n\N{RIGHT-TO-LEFT OVERRIDE}", "\ud800", "x" * 100_000, 10**4000]
)
def test_a_reason_is_short_and_printable_whatever_was_written(field: str, value: object) -> None:
    written = [value] if field in ("pod_cidrs", "extra") else value

    problem = read("n", Raw(GOOD | {field: written}), CLUSTER).problem

    assert problem.isascii()
    assert problem.isprintable()
    assert len(problem) < 200
    assert problem


def test_a_record_of_two_families_is_not_valid_in_a_cluster_of_one() -> None:
    problem = read("n", Raw(GOOD), TINY_CLUSTER).problem

    assert problem == "its pod CIDR fd00:10:244::/64 is not in the cluster's CIDRs"


def test_what_is_right_in_a_bad_record_is_kept() -> None:
    bad = {"vtep": "::1", "pod_cidrs": ["10.244.0.0/24", "odd"], "extra": ["odd", "10.9.9.9/32"]}

    claim = read("n", Raw(GOOD | bad), CLUSTER)

    assert claim.node_id == 1
    assert claim.pod_cidrs == (ip_network("10.244.0.0/24"),)
    assert claim.extra == (ip_network("10.9.9.9/32"),)
    assert claim.identity == IDENTITY


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"node_id": OTHER.node_id}, "its id 2 is that of node-two"),
        ({"vtep": OTHER.vtep}, "its VTEP 192.0.2.2 is that of node-two"),
        (
            {"vtep": ip_address("10.215.0.34")},
            "its VTEP 10.215.0.34 is an address that node-two published",
        ),
        ({"pod_cidrs": OTHER.pod_cidrs}, "its pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of"),
        (
            {"pod_cidrs": (RECORD.pod_cidrs[0], OTHER.pod_cidrs[1])},
            "its pod CIDR fd00:10:244:1::/64 overlaps fd00:10:244:1::/64 of node-two",
        ),
        (
            {"blocks": OTHER.pod_cidrs[1:]},
            "its pod CIDR fd00:10:244:1::/64 overlaps fd00:10:244:1::/64 of node-two",
        ),
        (
            {"extra": (ip_network("192.0.2.2/32"),)},
            "the address 192.0.2.2 that it published is the VTEP of node-two",
        ),
        (
            {"extra": OTHER.extra},
            "the address 10.215.0.34/32 that it published overlaps 10.215.0.34/32 of node-two",
        ),
        (
            {"extra": (ip_network("10.244.1.7/32"),)},
            "the address 10.244.1.7/32 that it published overlaps 10.244.1.0/24 of node-two",
        ),
    ],
)
def test_two_records_that_claim_the_same_are_told_apart(
    change: dict[str, object], reason: str
) -> None:
    claim = claim_of(replace(RECORD, **change))

    assert conflict(claim, claim_of(OTHER)).startswith(reason)


def test_an_address_in_a_cidr_is_a_conflict_seen_from_both_sides() -> None:
    publisher = claim_of(replace(OTHER, extra=(ip_network("10.244.0.7/32"),)))

    assert conflict(claim_of(RECORD), publisher) == (
        "its pod CIDR 10.244.0.0/24 overlaps 10.244.0.7/32, which node-two published"
    )


def test_a_further_block_is_a_conflict_as_a_pod_cidr_is() -> None:
    other = claim_of(replace(OTHER, blocks=(BLOCK,)))

    for change in ({"pod_cidrs": (BLOCK, RECORD.pod_cidrs[1])}, {"blocks": (BLOCK,)},
                   {"extra": (ip_network((BLOCK[7], 32)),)}):  # fmt: skip
        assert "10.244.7.0/24 of node-two" in conflict(claim_of(replace(RECORD, **change)), other)


def test_two_records_with_places_of_their_own_are_no_conflict() -> None:
    assert conflict(claim_of(RECORD), claim_of(OTHER)) == ""
    assert conflict(claim_of(OTHER), claim_of(RECORD)) == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("node-one", "node-one"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("\N{SNOWMAN}", "\\u2603"),
        ("x" * 1000, "x" * 253 + "...44f83544"),
        ("\udcfe", "\\udcfe"),
    ],
)
def test_a_name_is_printed_without_what_a_terminal_would_obey(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_a_record_with_any_number_of_addresses_costs_no_time() -> None:
    """20,000 of them took five seconds of processor time, of each agent."""
    crowd = GOOD | {"extra": [f"10.{n >> 8}.{n & 255}.1/32" for n in range(20_000)]}

    before = time.process_time()
    claim = read("n", Raw(crowd), CLUSTER)

    assert claim.problem == "its extra has 20000 entries, more than 1024"
    assert claim.extra == ()
    assert time.process_time() - before < 0.1


def test_a_record_that_is_too_large_is_not_decoded() -> None:
    assert read("n", Raw.too_large(10**6), CLUSTER).problem == (
        "it has 1000000 bytes, more than 131072"
    )


def test_the_largest_record_that_pycni_writes_fits() -> None:
    many = tuple(ip_network(f"2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff") for n in range(EXTRA_MAX))

    assert len(json.dumps(write(replace(RECORD, extra=many), IDENTITY))) < VALUE_MAX


def test_names_are_found_as_they_are_and_as_they_are_shown() -> None:
    long = "x" * 1000
    names = ["node-one", "a\nb", long, "\udcfe"]

    assert [named(names, printable(name)) for name in names] == names
    assert named(names, "node-two") is None
    assert named(["a\\nb", "a\nb"], "a\\nb") == "a\\nb"
