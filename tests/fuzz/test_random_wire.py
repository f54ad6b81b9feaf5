# SPDX-License-Identifier: Apache-2.0
"""Random frames of a pod and of a host on the underlay: nobody gets what he may not have.

The long profile sends ten million. SEED=... repeats a run.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpf.dataplane import Dataplane, compile_recorded
from bpf.world import IPV4, VXLAN_PORT
from fuzz import wire
from fuzz.profiles import PROFILE
from fuzz.wire import Trial, World, Wrong
from loader.objects import Objects

pytestmark = pytest.mark.root

COUNT = wire.COUNT if PROFILE == "long" else 90_000
ENOUGH = 20_000
"""Frames that find a fault as gross as those below."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return compile_recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def blind(recorded: Objects) -> Iterator[Dataplane]:
    """Programs that take another port for the overlay's."""
    other = struct.pack("!H", VXLAN_PORT + 1)
    with Dataplane(recorded, IPV4, vxlan_port=other) as dataplane:
        yield dataplane


@pytest.fixture
def sound(recorded: Objects) -> Iterator[Dataplane]:
    with Dataplane(recorded, IPV4) as dataplane:
        yield dataplane


def test_nobody_gets_what_he_may_not_have(recorded: Objects) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    lines = [f"SEED={seed}"]

    wire.run(recorded, seed=seed, count=COUNT, report=lines.append)

    sys.stdout.write("\n".join(lines))
    assert "0 delivered wrongly" in lines[-1]


def test_the_rules_find_vxlan_that_gets_through(blind: Dataplane) -> None:
    trial = Trial(World("pod"), blind)

    with pytest.raises(Wrong, match="VXLAN of a pod"):
        trial.run(random.Random(1), ENOUGH)


def test_the_rules_find_a_packet_of_another_pod(sound: Dataplane) -> None:
    trial = Trial(World("pod"), sound)
    tables = World("pod").tables()
    mixed_up = {**tables.endpoints, IPV4.pod_two: tables.endpoints[IPV4.pod_one]}
    sound.fill(replace(tables, endpoints=mixed_up))

    with pytest.raises(Wrong, match="another pod's packet"):
        trial.run(random.Random(1), ENOUGH)


def test_the_rules_find_a_node_that_speaks_for_another(sound: Dataplane) -> None:
    trial = Trial(World("stranger"), sound)
    tables = World("stranger").tables()
    stolen = dict.fromkeys(tables.remotes, IPV4.node_two)
    sound.fill(replace(tables, remotes=stolen))

    with pytest.raises(Wrong, match="its source is not that node's"):
        trial.run(random.Random(1), ENOUGH)
