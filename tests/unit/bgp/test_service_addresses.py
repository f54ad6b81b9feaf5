# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/service_addresses.py: what a node is to announce of Services, from loop to loop."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.bgp import file, service_addresses
from pycni.bgp.service_addresses import NOTHING, Told
from pycni.errors import FileError
from pycni.settings import Settings
from unit.bgp.samples import BGP, NODE, RECORD

INSIDE, INSIDE6, OUTSIDE = map(ip_address, ("10.96.0.10", "fd00:96::10", "192.0.2.53"))
NETWORKS = (ip_network("10.96.0.0/16"), ip_network("fd00:96::/108"))
TOLD = Told(addresses=(INSIDE, INSIDE6), unforwarded=(6,))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    bgp = BGP.model_copy(update={"announce": ("pods", "cluster-ips"), "service_networks": NETWORKS})
    return Settings(node_name="one", run_dir=tmp_path, bgp=bgp)


def test_what_is_saved_is_loaded_by_others(settings: Settings) -> None:
    assert service_addresses.load(settings) is None
    assert service_addresses.save(settings, TOLD)

    assert service_addresses.load(settings) == TOLD
    assert not service_addresses.save(settings, TOLD)


def test_an_address_outside_of_the_networks_is_never_loaded(settings: Settings) -> None:
    service_addresses.save(settings, Told(addresses=(INSIDE, OUTSIDE)))

    found = service_addresses.load(settings)

    assert found == Told(addresses=(INSIDE,))


def test_settings_that_announce_none_load_none(settings: Settings) -> None:
    service_addresses.save(settings, TOLD)

    for bgp in (BGP, None):
        other = settings.model_copy(update={"bgp": bgp})
        assert service_addresses.load(other) == NOTHING


@pytest.mark.parametrize("content", [b"", b"[]", b'{"addresses": ["x"]}'])
def test_a_damaged_file_is_told_and_written_again(settings: Settings, content: bytes) -> None:
    service_addresses.path(settings).write_bytes(content)

    with pytest.raises(FileError, match="cannot be read") as caught:
        service_addresses.load(settings)
    assert service_addresses.save(settings, TOLD)

    assert "the agent writes it again" in caught.value.hint
    assert service_addresses.load(settings) == TOLD


def test_they_are_in_birds_file_and_go_with_it(settings: Settings) -> None:
    service_addresses.save(settings, TOLD)

    text = file.text(settings, NODE, [RECORD])
    file.withdraw(settings)

    assert text is not None
    assert b"route 10.96.0.10/32 unreachable;" in text
    assert b"route fd00:96::10/128 unreachable;" in text
    assert not service_addresses.path(settings).exists()
