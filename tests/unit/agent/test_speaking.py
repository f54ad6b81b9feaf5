# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/speaking.py: what the agent writes, tells BIRD, and keeps of what it hears."""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.agent.known import Known
from pycni.agent.loops import Loop, Run
from pycni.agent.speaking import CHANGES, Speaking, follow
from pycni.bgp import file, service_addresses
from pycni.settings import Settings
from pycni.stores import Former, open_store
from pycni.stores.bgp import BgpStore
from unit.bgp.samples import BGP, NODE, RECORD, ROUTES, SESSIONS
from unit.bgp.test_bird import GREETING, speaking

READ = "0003 Reconfigured\n"
STATUS = "1011-Last reboot on 2026-11-29\n0013 Daemon is up and running\n"
LOOK = (f"{SESSIONS}\n", f"{ROUTES}\n", STATUS)
EMPTY = (f"{SESSIONS}\n", "0000 \n", STATUS)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a node that is set up, and whose agent serves."""
    bgp = BGP.model_copy(update={"learn": ("pods",), "pod_cidrs": NODE.pod_cidrs})
    found = Settings(
        node_name="one", encap="direct", store="bgp:", bgp=bgp,
        state_dir=tmp_path / "state", run_dir=tmp_path / "run",
    )  # fmt: skip
    for directory in (found.state_dir, found.run_dir):
        directory.mkdir(mode=0o700)
    NODE.save(found)
    found.socket_path.touch()
    store = open_store(found.store_url, found.cluster)
    store.register("one", NODE.vtep, identity="machine", had=Former(NODE.pod_cidrs))
    return found


@pytest.fixture
def known() -> Known:
    found = Known()
    found.tell([RECORD])
    return found


def turn(settings: Settings, loop: Speaking, known: Known, *answers: str, at: float = 0) -> None:
    path = file.socket_path(settings)
    with speaking(path, GREETING, *answers):
        loop.turn(known, at)
    path.unlink()


def learned(settings: Settings) -> set[str]:
    store = open_store(settings.store_url, settings.cluster)
    assert isinstance(store, BgpStore)
    return {str(network) for one in store.learned() for network in one.networks}


def test_nothing_is_announced_before_the_nodes_are_in_the_maps(settings: Settings) -> None:
    Speaking(settings).turn(Known(), 0)

    assert not file.config_path(settings).exists()


def test_nothing_is_written_again_while_the_node_is_torn_down(
    settings: Settings, known: Known
) -> None:
    settings.socket_path.unlink()
    Speaking(settings).turn(known, 0)

    assert not file.config_path(settings).exists()


def test_bird_reads_the_file_at_first_and_after_each_change(
    settings: Settings, known: Known
) -> None:
    loop = Speaking(settings)

    turn(settings, loop, known, READ, *LOOK)
    turn(settings, loop, known, *LOOK)
    known.tell([replace(RECORD, extra=(ip_network("10.250.0.7/32"),))])
    turn(settings, loop, known, READ, *LOOK)

    assert "route 10.250.0.7/32" in file.config_path(settings).read_text()


def test_a_configuration_that_was_refused_is_tried_again(
    settings: Settings, known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Speaking(settings)

    turn(settings, loop, known, "8002 syntax error\n")
    turn(settings, loop, known, "8002 syntax error\n")
    turn(settings, loop, known, READ, *LOOK)

    assert sum("BGP fails" in line for line in caplog.messages) == 1


def test_what_was_learnt_is_forgotten_only_when_bird_has_heard_all(
    settings: Settings, known: Known
) -> None:
    loop = Speaking(settings)
    up = EMPTY[0].replace("Active", "Established")

    turn(settings, loop, known, READ, *LOOK)
    assert learned(settings) == {"10.244.2.0/24"}
    turn(settings, loop, known, *EMPTY, at=1)
    loop.turn(known, 2)  # no BIRD at all
    assert learned(settings) == {"10.244.2.0/24"}
    for at in (3, 4, 9):
        turn(settings, loop, known, up, *EMPTY[1:], at=at)

    assert learned(settings) == set()


def test_a_bird_that_was_away_is_not_taken_at_its_word_at_once(
    settings: Settings, known: Known
) -> None:
    loop = Speaking(settings)
    up = LOOK[0].replace("Active", "Established")
    turn(settings, loop, known, READ, up, *LOOK[1:])
    turn(settings, loop, known, up, *LOOK[1:], at=4)

    loop.turn(known, 5)  # no BIRD at all
    turn(settings, loop, known, up, *EMPTY[1:], at=6)

    assert learned(settings) == {"10.244.2.0/24"}


def test_settings_that_became_wrong_do_not_end_what_is_learnt(
    settings: Settings, known: Known, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.bgp is not None
    (peer,) = settings.bgp.peers
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("a password")
    peers = (peer.model_copy(update={"password_file": secret}),)
    bgp = settings.bgp.model_copy(update={"peers": peers})
    loop = Speaking(settings.model_copy(update={"bgp": bgp}))
    turn(settings, loop, known, READ, *EMPTY)
    secret.chmod(0o644)

    turn(settings, loop, known, *LOOK)
    turn(settings, loop, known, *LOOK)

    assert learned(settings) == {"10.244.2.0/24"}
    assert sum("open to others" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("net", ["1007-999.0.0.1/24  ", "1007-10.0.0.1/24  ", "1007-  "])
def test_an_answer_that_cannot_be_read_is_told_and_forgets_nothing(
    settings: Settings, known: Known, caplog: pytest.LogCaptureFixture, net: str
) -> None:
    loop = Speaking(settings)
    turn(settings, loop, known, READ, *LOOK)
    garbage = f"{net} unicast [b1 23:46:37] * (100)\n0000 \n"

    with speaking(file.socket_path(settings), GREETING, LOOK[0], garbage):
        loop.turn(known, 1)

    assert "cannot be read" in caplog.text
    assert learned(settings) == {"10.244.2.0/24"}


def test_a_session_that_comes_and_goes_does_not_fill_the_log(
    settings: Settings, known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loop = Speaking(settings)
    down = SESSIONS.replace("BGP state:          Established", "BGP state:          Active")
    for number in range(20):
        turn(settings, loop, known, *([READ] if not number else []),
             f"{(SESSIONS, down)[number % 2]}\n", *EMPTY[1:], at=number)  # fmt: skip

    assert caplog.text.count("session changed session=b1") == CHANGES


def test_two_announcers_are_told_once(
    settings: Settings, known: Known, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Speaking(settings)

    turn(settings, loop, known, READ, *LOOK)  # another announces 10.244.1.0/24
    turn(settings, loop, known, *LOOK)

    assert sum("announced by another, too" in line for line in caplog.messages) == 1


def test_without_the_table_what_was_announced_is_withdrawn(settings: Settings) -> None:
    plain = settings.model_copy(update={"bgp": None})
    file.write(plain, b"one")
    stop = threading.Event()
    stop.set()

    follow(plain, run_of(stop), known=Known())

    assert not file.config_path(plain).exists()


def test_services_of_former_settings_are_announced_no_more(settings: Settings) -> None:
    path = service_addresses.path(settings)
    path.write_text('{"addresses": ["10.96.0.10"]}')
    stop = threading.Event()
    stop.set()

    follow(settings, run_of(stop), known=Known())

    assert not path.exists()


def run_of(stop: threading.Event) -> Run:
    return Run(Loop("bgp", lambda _: None, 1.0), stop, None)  # type: ignore[arg-type]
