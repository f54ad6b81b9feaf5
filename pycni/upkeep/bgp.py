# SPDX-License-Identifier: Apache-2.0
"""Part "bgp": BIRD runs, has read what pycni wrote, and speaks with all that it shall speak with.

BIRD is started by others, and other speakers are others' too: what is wrong with them is told. The
configuration is mended by the agent's loop (agent/speaking.py), which also has a line in the log
for each thing that begins, and not here.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.bgp import file, learned, resources, service_addresses
from pycni.bgp.answers import Session
from pycni.bgp.bird import START, Bird
from pycni.bgp.neighbours import MESH_MAX
from pycni.bgp.view import View, look
from pycni.errors import BirdError, FileError, InvalidSettings
from pycni.faults import Fault, Weight
from pycni.stores.records import printable
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "bgp"
NAMED = 3
"""Sessions that faults name; of more only their number is told."""
WRITES = "wait: the agent writes it within seconds; if it does not, its log says why (BGP fails)"
CORRECT = "correct it: kubectl edit bgppeers.pycni.dev (docs/bgp.md)"
LISTED = "wait for the API server; if it answers, the agent's log says why (loop=services)"
NOBODY = "kube-proxy has made nothing here, and nobody else forwards what comes from outside"
FORWARD = (
    "run kube-proxy on this node (pycni forwards to Services what pods send, and no more), or take "
    "Services out of bgp.announce (docs/bgp.md)"
)
TWO = (
    "find out which of the two is right, see: pycni bgp routes; and give the other node its own "
    "pod CIDR: two nodes of one cluster have one, or a stranger announces it"
)


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Of BIRD, its sessions and its routes. One that is missing is no loss for packets: what was
    learnt stays."""
    bgp = d.settings.bgp
    if bgp is None:
        return
    if d.nodes is not None:
        yield from _config_faults(d)
    if bgp.mesh and not bgp.reflectors and len(d.others) >= MESH_MAX:
        found = f"of {len(d.others) + 1} nodes, each of which speaks with all others"
        todo = "name two or three nodes in bgp.reflectors, the same on all nodes (docs/bgp.md)"
        yield _fault("the mesh", found, todo)
    try:
        with Bird(file.socket_path(d.settings)) as bird:
            bird.ask("configure check")
            view = look(bird)
    except BirdError as error:
        yield _fault(error.message, "", error.hint)
        return
    yield from _session_faults(view)
    for problem in learned.learn(view.received, d.node, d.settings.cluster, asn=bgp.asn).problems:
        yield _fault(problem.thing, problem.found, TWO)


def details(d: Description) -> str:
    """How much there is of it."""
    if d.settings.bgp is None:
        return "not used"
    try:
        with Bird(file.socket_path(d.settings)) as bird:
            view = look(bird)
    except BirdError:  # it ended right now
        return ""
    up = sum(one.is_up for one in view.sessions)
    found = f"sessions up: {up} of {len(view.sessions)}, routes received: {len(view.received)}"
    if not d.settings.announces_services:
        return found
    try:
        told = service_addresses.load(d.settings) or service_addresses.NOTHING
    except FileError:  # it is a fault
        return found
    return f"{found}, Services' addresses announced: {len(told.addresses)}"


def _config_faults(d: Description) -> Iterator[Fault]:
    try:
        wanted = file.text(d.settings, d.node, d.nodes or ())
    except (InvalidSettings, FileError) as error:
        yield _fault(error.message, "", error.hint)
        return
    yield from _resource_faults(d)
    yield from _service_faults(d)
    if wanted is not None and file.differs(d.settings, wanted):
        path = file.config_path(d.settings)
        yield _fault(f"BIRD's configuration {path}", "not up to date", WRITES)


def _resource_faults(d: Description) -> Iterator[Fault]:
    set_aside = sorted(resources.usable(d.settings).set_aside.items())
    for name, why in set_aside[:NAMED]:
        yield _fault(f"the BGPPeer {printable(name)}", f"set aside: {printable(why)}", CORRECT)
    if len(set_aside) > NAMED:
        yield _fault(f"each of {len(set_aside) - NAMED} more BGPPeers", "set aside", CORRECT)


def _service_faults(d: Description) -> Iterator[Fault]:
    """`file.text` has read the file before."""
    told = service_addresses.load(d.settings)
    if told is None:
        yield _fault("each address of a Service", "not announced: none is listed yet", LISTED)
        return
    for version in told.unforwarded:
        thing, found = f"each IPv{version} address of a Service", f"not announced: {NOBODY}"
        yield _fault(thing, found, FORWARD)


def _session_faults(view: View) -> Iterator[Fault]:
    down = [one for one in view.sessions if not one.is_up]
    for one in down[:NAMED]:
        found = f"not up: {one.state}" + (f", {one.error}" if one.error else "")
        yield _fault(_thing(one), found, _todo(one))
    if len(down) > NAMED:
        yield _fault(f"each of {len(down) - NAMED} more sessions", "not up", START)


def _thing(session: Session) -> str:
    return f"the session with {session.neighbour} (AS {session.asn})"


def _todo(session: Session) -> str:
    return (
        f"see that {session.neighbour} answers (ping, TCP port 179), that it has this node as its "
        "neighbour, and that both have the same AS numbers and password; pycni bgp sessions"
    )


def _fault(what: str, found: str, todo: str) -> Fault:
    return Fault(PART, what, found, todo, Weight.DEGRADED)
