# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/resources.py: which BGPPeer resources are for this node, and what is not right."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.bgp import file, resources
from pycni.bgp.resources import NONE, Chosen
from pycni.bgp_settings import BgpPeer
from pycni.errors import FileError
from pycni.settings import Settings
from unit.bgp.samples import BGP, NODE, RECORD, ROUTER, SETTINGS

SPEC = {"address": "192.0.2.1", "asn": 64512}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", state_dir=tmp_path, store="kube:", bgp=BGP)


def chosen(labels: dict[str, str] | None = None, **specs: dict[str, object]) -> Chosen:
    read = {name: resources.read(spec) for name, spec in specs.items()}
    return resources.choose(read, labels or {}, BGP)


def addresses(found: Chosen) -> list[str]:
    return [str(peer.address) for peer in found.peers.values()]


def test_a_resource_has_all_that_a_peer_of_the_settings_has():
    whole = SPEC | {"bfd": True, "multihop": 2, "communities": ["64512:1"], "client": True,
                    "passwordKey": "tor"}  # fmt: skip

    peer = chosen(one=whole).peers["one"]

    settings = {"address": "192.0.2.1", "asn": 64512, "bfd": True, "multihop": 2, "client": True,
                "communities": ("64512:1",), "password_file": "/etc/pycni-bgp/tor"}  # fmt: skip
    assert peer == BgpPeer.model_validate(settings)


def test_each_field_of_the_settings_is_one_of_the_resource():
    assert {*resources.FIELDS, "password_file"} == set(BgpPeer.model_fields)


@pytest.mark.parametrize(
    ("wanted", "labels", "is_chosen"),
    [
        ({}, {}, True),
        ({"rack": "1"}, {"rack": "1", "os": "linux"}, True),
        ({"rack": "1"}, {"rack": "2"}, False),
        ({"rack": "1", "os": "linux"}, {"rack": "1"}, False),
    ],
)
def test_labels_say_for_which_nodes_it_is(wanted, labels, is_chosen):
    found = chosen(labels, one=SPEC | {"nodeSelector": wanted})

    assert bool(found.peers) == is_chosen
    assert not found.set_aside


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"address": "nobody"}, "address: must be the IP address of a BGP speaker, in quotes"),
        ({"address": "127.0.0.1"}, "address: must be the IP address"),
        ({"asn": 0}, "asn: must be the number of an autonomous system"),
        ({"asn": "64512"}, "asn: "),
        ({"multihop": 256}, "multihop: must be 0"),
        ({"communities": ["no"]}, "communities: must be a community such as"),
        ({"client": True, "asn": 64999}, "client: it is of another system than this node (64512)"),
        ({"passwordKey": "../shadow"}, "passwordKey: must be a key of the Secret pycni-bgp"),
        ({"passwordKey": ".."}, "passwordKey: must be a key"),
        ({"passwordKey": 7}, "passwordKey: must be a key"),
        ({"nodeSelector": ["rack"]}, "nodeSelector: must be labels"),
        ({"holdTime": 9}, "unknown field holdTime: a newer version of pycni may know it"),
        ({"address": str(ROUTER)}, f"{ROUTER} is in bgp.peers of the settings, too"),
    ],
)
def test_one_that_is_not_right_is_set_aside_and_the_others_are_used(change, why):
    found = chosen(good={"address": "192.0.2.9", "asn": 1}, bad=SPEC | change)

    assert addresses(found) == ["192.0.2.9"]
    assert found.set_aside["bad"].startswith(why)


@pytest.mark.parametrize("missing", ["address", "asn"])
def test_what_is_missing_is_named(missing):
    spec = {key: value for key, value in SPEC.items() if key != missing}

    assert chosen(one=spec).set_aside == {"one": f"{missing} is missing"}


def test_of_two_with_one_address_the_first_by_name_is_used():
    found = chosen(b=SPEC | {"asn": 2}, a=SPEC | {"asn": 1})

    assert [peer.asn for peer in found.peers.values()] == [1]
    assert found.set_aside == {"b": "the BGPPeer a has its address, too"}


def test_one_that_is_not_right_for_other_nodes_is_no_matter_of_this_one():
    assert chosen(bad={"asn": 0, "nodeSelector": {"rack": "2"}}) == NONE


def test_what_was_chosen_is_kept_and_told_whether_it_is_new(settings):
    found = chosen(one=SPEC | {"communities": ["64512:1"], "passwordKey": "tor"}, two={})

    assert resources.load(settings) == NONE
    assert resources.save(settings, NONE), "that there is none is known now"
    assert resources.save(settings, found)
    assert not resources.save(settings, found)
    assert resources.load(settings) == found
    assert resources.path(settings).stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_named_and_written_again(settings):
    resources.path(settings).write_text("{")

    with pytest.raises(FileError, match=r"bgp-peers\.json cannot be read"):
        resources.load(settings)
    assert resources.save(settings, NONE)
    assert resources.load(settings) == NONE


def test_where_the_store_is_not_kubernetes_there_are_none(settings):
    resources.save(settings, chosen(one=SPEC))

    assert resources.load(settings.model_copy(update={"store": "etcd:http://x"})) == NONE
    assert resources.load(settings.model_copy(update={"bgp": None})) == NONE
    assert resources.load(SETTINGS) == NONE


def test_one_without_its_password_is_set_aside_and_the_others_are_used(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(resources, "PASSWORDS", tmp_path)
    (tmp_path / "known").touch(mode=0o600)
    (tmp_path / "known").write_text("secret")
    good = SPEC | {"passwordKey": "known"}
    bad = {"address": "192.0.2.2", "asn": 1, "passwordKey": "unknown"}
    resources.save(settings, chosen(good=good, bad=bad))

    text = file.text(settings, NODE, [RECORD])

    assert text is not None
    assert b"neighbor 192.0.2.1 as 64512;" in text
    assert b"192.0.2.2" not in text
    assert "is its key in the Secret pycni-bgp?" in resources.usable(settings).set_aside["bad"]


def test_their_sessions_are_in_birds_configuration_beside_the_others(settings):
    resources.save(settings, chosen(one=SPEC))

    text = file.text(settings, NODE, [RECORD])

    assert text is not None
    assert b"neighbor 192.0.2.1 as 64512;" in text
    assert f"neighbor {ROUTER} as 64999;".encode() in text
