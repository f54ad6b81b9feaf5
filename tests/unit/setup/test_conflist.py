# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/conflist.py: a list that is there stays its operator's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import FileError, InvalidConfig, PycniError
from pycni.setup.conflist import Network, change, check, is_ours, mtu, render

WHERE = Path("/etc/cni/net.d/10-pycni.conflist")


def edited(**changes: Any) -> bytes:
    """Our list as an operator has changed it: other spacing, another plugin, a capability less."""
    document = json.loads(render(Network()))
    own = document["plugins"][0]
    del own["capabilities"]["io.kubernetes.cri.pod-annotations"]
    own |= {"tcx": True, **changes}
    document["plugins"].append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    document["disableGC"] = True
    return json.dumps(document).encode()


def test_a_list_that_was_edited_stays_as_it_is_byte_for_byte() -> None:
    before = edited()

    assert change(before, Network(), where=WHERE) == before


@pytest.mark.parametrize(
    "network", [Network(name="pycni"), Network(ip_masq=True), Network(name="pycni", ip_masq=True)]
)
def test_asking_for_what_is_there_changes_nothing(network: Network) -> None:
    before = edited()

    assert change(before, network, where=WHERE) == before


def test_only_what_is_asked_for_is_changed() -> None:
    before = edited()

    after = change(before, Network(name="blue", ip_masq=False, mtu=1300), where=WHERE)

    wanted = json.loads(before)
    wanted["name"] = "blue"
    wanted["plugins"][0] |= {"ipMasq": False, "mtu": 1300}
    assert json.loads(after) == wanted
    assert [one["type"] for one in wanted["plugins"]] == ["pycni", "bandwidth"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"#!/bin/sh\n", "no JSON object"),
        (b'{"plugins": []}', "other plugins"),
        (b'{"plugins": [{"type": "bridge"}]}', "other plugins"),
        (b'{"plugins": "pycni"}', "other plugins"),
    ],
)
def test_what_is_no_list_of_ours_is_refused_by_name(content: bytes, found: str) -> None:
    with pytest.raises(FileError) as caught:
        change(content, Network(mtu=1300), where=WHERE)

    assert str(WHERE) in caught.value.message
    assert found in caught.value.details
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("network", [Network(), Network(name="blue")])
def test_a_list_with_which_every_add_would_fail_is_refused(network: Network) -> None:
    with pytest.raises(InvalidConfig, match="mtu"):
        change(edited(mtu="large"), network, where=WHERE)


def test_the_name_is_that_of_the_list_and_not_of_the_plugin() -> None:
    document = json.loads(render(Network()))
    del document["name"]
    document["plugins"][0]["name"] = "x"

    check(document)  # a plugin's own name is what the runtime overwrites, so it is no fault

    document["name"] = "a/b"
    with pytest.raises(PycniError):
        check(document)


def test_the_mtu_of_a_list_is_told() -> None:
    assert mtu(render(Network(mtu=1400))) == 1400
    assert mtu(render(Network())) is None


def test_a_list_is_ours_until_its_mark_goes_or_a_plugin_comes() -> None:
    document = json.loads(render(Network()))
    assert is_ours(json.dumps(document).encode())
    assert is_ours(json.dumps(document | {"disableGC": True}).encode())

    assert not is_ours(edited())
    del document["writtenBy"]
    assert not is_ours(json.dumps(document).encode())
    assert not is_ours(b"{")
    assert not is_ours(b'{"writtenBy": "pycni install"}')
    assert not is_ours(b'{"writtenBy": "pycni install", "plugins": [null]}')
