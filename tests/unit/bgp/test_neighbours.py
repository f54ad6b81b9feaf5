# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/neighbours.py and passwords.py: with whom there are sessions, and by which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycni.bgp import passwords
from pycni.bgp.neighbours import Neighbour, mark, wanted
from pycni.bgp_settings import Bgp
from pycni.errors import InvalidSettings
from unit.bgp.samples import BGP, PEER, ROUTER, VTEP, other

OTHERS = [other(number) for number in (2, 3, 4)]
SECRET = "a secret"


def bgp(**values: Any) -> Bgp:
    return Bgp.model_validate({"asn": 64512, **values})


def names(*found: Neighbour) -> list[str]:
    return [one.name for one in found]


def test_without_a_mesh_nodes_are_no_neighbours():
    assert wanted(BGP, "one", OTHERS) == (PEER,)


def test_in_a_mesh_each_other_node_is_one():
    found = wanted(bgp(mesh=True), "one", OTHERS)

    assert names(*found) == ["node_198_18_0_2", "node_198_18_0_3", "node_198_18_0_4"]
    assert all(one.is_node and one.asn == 64512 and not one.client for one in found)


def test_with_reflectors_the_others_speak_with_those_only():
    found = wanted(bgp(mesh=True, reflectors=["node2", "node3"]), "one", OTHERS)

    assert names(*found) == ["node_198_18_0_2", "node_198_18_0_3"]
    assert not any(one.client for one in found)


def test_a_reflector_speaks_with_all_and_the_others_are_its_clients():
    found = wanted(bgp(mesh=True, reflectors=["one", "node3"]), "one", OTHERS)

    assert {one.name: one.client for one in found} == {
        "node_198_18_0_2": True, "node_198_18_0_3": False, "node_198_18_0_4": True,
    }  # fmt: skip


def test_one_address_has_one_session_and_the_settings_go_before():
    peer = {"address": "198.18.0.2", "asn": 64999}

    found = wanted(bgp(mesh=True, peers=[peer]), "one", OTHERS)

    assert names(*found) == ["node_198_18_0_3", "node_198_18_0_4", "peer_198_18_0_2"]


def test_a_peer_has_the_communities_of_all_and_its_own():
    peer = {"address": str(ROUTER), "asn": 64999, "communities": ["1:2"], "bfd": True}

    (found,) = wanted(bgp(peers=[peer], communities=["3:4:5"]), "one", [])

    assert (found.communities, found.bfd) == (("3:4:5", "1:2"), True)


def test_two_machines_of_one_name_have_two_marks():
    assert mark("one", VTEP) != mark("one", ROUTER)
    assert 0 <= mark("one", VTEP) < 2**32


def neighbour(file: Path) -> Neighbour:
    return Neighbour("peer", ROUTER, 64999, file)


def test_a_password_is_a_line_of_a_file(tmp_path):
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(f"{SECRET}\n")

    assert passwords.read([neighbour(file), PEER]) == {file: SECRET}


def test_a_password_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0o640)

    with pytest.raises(InvalidSettings, match="is open to others") as caught:
        passwords.read([neighbour(file)])

    assert f"chmod 0600 {file}" in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n", 'with "quotes"', "two\nlines", "ß", "x" * 90])
def test_what_bird_could_not_read_is_no_password(tmp_path, text):
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")

    with pytest.raises(InvalidSettings, match="password file"):
        passwords.read([neighbour(file)])


def test_a_password_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InvalidSettings, match="cannot be read"):
        passwords.read([neighbour(tmp_path / "none")])
