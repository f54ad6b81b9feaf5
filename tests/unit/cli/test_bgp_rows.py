# SPDX-License-Identifier: Apache-2.0
"""pycni/cli/bgp_rows.py: sessions, and routes both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.bgp import file
from pycni.cli import bgp_rows
from pycni.errors import BirdError, NotAvailable
from pycni.settings import Settings
from unit.bgp.samples import BGP, ROUTES, SESSIONS
from unit.bgp.test_bird import GREETING, speaking

LOOK = (f"{SESSIONS}\n", f"{ROUTES}\n", "0013 Daemon is up and running\n")
TOLD = "1007-Table master4:\n 10.244.1.0/24 unreachable [own4 23:46] * (200)\n0000 \n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path, bgp=BGP)


def test_a_session_has_its_counts(settings: Settings) -> None:
    with speaking(file.socket_path(settings), GREETING, *LOOK, TOLD):
        up, down = bgp_rows.sessions(settings)

    assert (up["name"], up["speaker"], up["asn"]) == ("b1", "198.18.0.2", 64512)
    assert (up["received"], up["announced"], up["last_error"]) == (2, 1, "")
    assert (down["state"], down["received"], down["announced"]) == ("Active", 1, 0)


def test_a_session_that_has_only_begun_announces_nothing(settings: Settings) -> None:
    with speaking(file.socket_path(settings), GREETING, *LOOK, "9001 No valid tables\n"):
        up, _ = bgp_rows.sessions(settings)

    assert up["announced"] == 0


def test_routes_are_shown_both_ways(settings: Settings) -> None:
    with speaking(file.socket_path(settings), GREETING, *LOOK, TOLD):
        rows = bgp_rows.routes(settings)

    said = [(row["direction"], row["network"], row["session"], row["used"]) for row in rows]
    assert said == [
        ("received", "10.244.1.0/24", "b2", False),
        ("received", "10.244.2.0/24", "b1", True),
        ("received", "fd00:10:244:2::/64", "b1", True),
        ("announced", "10.244.1.0/24", "b1", None),
    ]


def test_a_node_without_bgp_and_one_without_bird_say_so(settings: Settings) -> None:
    with pytest.raises(NotAvailable, match="speaks no BGP"):
        bgp_rows.sessions(settings.model_copy(update={"bgp": None}))
    with pytest.raises(BirdError, match="BIRD does not run"):
        bgp_rows.routes(settings)
