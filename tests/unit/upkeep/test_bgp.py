# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/bgp.py: what `status` says about BIRD and its sessions."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.bgp import file, resources, service_addresses
from pycni.bgp.service_addresses import Told
from pycni.bgp_settings import Bgp
from pycni.faults import Fault, Weight
from pycni.settings import Settings
from pycni.upkeep import bgp
from pycni.upkeep.description import Description
from unit.bgp.samples import BGP, NODE, RECORD, ROUTES, SESSIONS, other
from unit.bgp.test_bird import GREETING, speaking

CHECKED = "0020 Configuration OK\n"
STATUS = "1011-Last reboot on 2026-11-29\n0013 Daemon is up and running\n"
EMPTY = "0000 \n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path / "run", bgp=BGP)


def described(settings: Settings, *others: int) -> Description:
    return Description(settings, NODE, (RECORD, *map(other, others)))


def look(d: Description, *answers: str, seen: Any = None) -> list[Fault]:
    text = file.text(d.settings, d.node, d.nodes or ())
    if text is not None:
        file.write(d.settings, text)
    with speaking(file.socket_path(d.settings), GREETING, *answers):
        return list(bgp.faults(d, seen))


def test_without_the_table_there_is_nothing_to_say(settings: Settings) -> None:
    plain = settings.model_copy(update={"bgp": None})

    assert list(bgp.faults(described(plain), None)) == []  # type: ignore[arg-type]
    assert bgp.details(described(plain)) == "not used"


def test_a_bird_that_does_not_run_is_told_and_breaks_nothing(settings: Settings) -> None:
    faults = list(bgp.faults(described(settings), None))  # type: ignore[arg-type]

    assert [fault.weight for fault in faults] == [Weight.DEGRADED] * 2
    assert "not up to date" in faults[0].found
    assert "BIRD does not run" in faults[1].thing
    assert "pycni-bird" in faults[1].todo


def test_a_file_that_bird_refuses_is_told(settings: Settings) -> None:
    (fault,) = look(described(settings), "8002 bird.conf:3: syntax error\n")

    assert "refuses `configure check`: bird.conf:3: syntax error" in fault.thing


def test_resources_that_are_set_aside_are_told(settings: Settings, tmp_path: Path) -> None:
    ours = settings.model_copy(update={"store": "kube:", "state_dir": tmp_path})
    wrong = {f"peer{number}": resources.read({"asn": 1}) for number in range(5)}
    resources.save(ours, resources.choose(wrong, {}, BGP))
    up = SESSIONS.replace("start  23:46:36.651  Active  ", "up     23:46:36.651  Established")

    faults = look(described(ours), CHECKED, f"{up}\n", EMPTY, STATUS)

    assert [fault.sentence for fault in faults[:4]] == [
        *(f"the BGPPeer peer{number} is set aside: address is missing" for number in range(3)),
        "each of 2 more BGPPeers is set aside",
    ]
    assert "kubectl edit bgppeers" in faults[0].todo


def announcing(settings: Settings) -> Settings:
    update = {"announce": ("cluster-ips",), "service_networks": (ip_network("10.96.0.0/16"),)}
    return settings.model_copy(update={"bgp": BGP.model_copy(update=update)})


@pytest.mark.parametrize(
    ("told", "sentences"),
    [
        (None, ["each address of a Service is not announced: none is listed yet"]),
        (Told(addresses=(ip_address("10.96.0.10"),)), []),
        (Told(unforwarded=(4, 6)), [f"each IPv{version} address of a Service is not announced: "
                                    f"{bgp.NOBODY}" for version in (4, 6)]),
    ],
)  # fmt: skip
def test_services_that_are_not_announced_are_told(
    settings: Settings, told: Told | None, sentences: list[str]
) -> None:
    ours = announcing(settings)
    if told is not None:
        service_addresses.save(ours, told)

    faults = look(described(ours), "8002 bird.conf:3: syntax error\n")

    assert [fault.sentence for fault in faults[:-1]] == sentences
    assert {fault.weight for fault in faults} == {Weight.DEGRADED}


def test_a_damaged_file_of_services_is_told(settings: Settings) -> None:
    ours = announcing(settings)
    path = service_addresses.path(ours)
    path.parent.mkdir()
    path.write_text("x")

    faults = list(bgp.faults(described(ours), None))  # type: ignore[arg-type]

    assert f"the file {path} cannot be read" in faults[0].thing
    with speaking(file.socket_path(ours), GREETING, f"{SESSIONS}\n", EMPTY, STATUS):
        assert "Services" not in bgp.details(described(ours))


def test_how_many_addresses_of_services_are_announced_is_told(settings: Settings) -> None:
    ours = announcing(settings)
    service_addresses.save(ours, Told(addresses=(ip_address("10.96.0.10"),)))

    with speaking(file.socket_path(ours), GREETING, f"{SESSIONS}\n", EMPTY, STATUS):
        assert bgp.details(described(ours)).endswith("Services' addresses announced: 1")


def test_a_file_of_resources_that_is_damaged_is_told(settings: Settings, tmp_path: Path) -> None:
    ours = settings.model_copy(update={"store": "kube:", "state_dir": tmp_path})
    resources.path(ours).write_text("{")
    ours.run_dir.mkdir()

    with speaking(file.socket_path(ours), GREETING, CHECKED, f"{SESSIONS}\n", EMPTY, STATUS):
        (fault, *_) = bgp.faults(described(ours), None)  # type: ignore[arg-type]

    assert "bgp-peers.json cannot be read" in fault.thing
    assert "remove it" in fault.todo


def test_a_session_that_is_down_is_told_with_its_error(settings: Settings) -> None:
    (fault,) = look(described(settings), CHECKED, f"{SESSIONS}\n", EMPTY, STATUS)

    assert fault.sentence == (
        "the session with fd00::2 (AS 64999) is not up: Active, Socket: Connection refused"
    )
    assert "TCP port 179" in fault.todo


def test_two_announcers_are_told(settings: Settings) -> None:
    up = SESSIONS.partition("1002-b2")[0] + "0000 \n"
    up = up.replace("1002-b1", "1002-b2")

    faults = look(described(settings), CHECKED, up, f"{ROUTES}\n", STATUS)

    assert "10.244.1.0/24 is announced by another, too" in faults[0].sentence


def test_a_mesh_of_many_nodes_is_told(settings: Settings) -> None:
    mesh = Bgp(asn=64512, mesh=True)
    d = described(settings.model_copy(update={"bgp": mesh}), *range(2, 102))

    (fault,) = look(d, CHECKED, EMPTY, EMPTY, STATUS)

    assert fault.thing == "the mesh"
    assert "bgp.reflectors" in fault.todo


def test_a_password_file_that_is_missing_is_told(settings: Settings, tmp_path: Path) -> None:
    peer = BGP.peers[0].model_copy(update={"password_file": tmp_path / "none"})
    d = described(settings.model_copy(update={"bgp": BGP.model_copy(update={"peers": (peer,)})}))

    (fault, _) = list(bgp.faults(d, None))  # type: ignore[arg-type]

    assert "password file" in fault.thing


def test_details_count_what_is_up(settings: Settings) -> None:
    settings.run_dir.mkdir()
    answers = (f"{SESSIONS}\n", f"{ROUTES}\n", STATUS)

    with speaking(file.socket_path(settings), GREETING, *answers):
        assert bgp.details(described(settings)) == "sessions up: 1 of 2, routes received: 3"
    file.socket_path(settings).unlink()
    assert bgp.details(described(settings)) == ""
