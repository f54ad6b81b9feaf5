# SPDX-License-Identifier: Apache-2.0
"""The node agent: answers the plugin, follows the cluster, keeps the tables true.

Forwarding never needs it: what it writes stays in the kernel when it ends. Each call of the plugin
has a thread, and so has each of the loops below. A loop deletes nothing because of a list that it
could not read to its end.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from functools import partial

from pycni.agent import (
    blocks,
    changed_links,
    cluster_store,
    ended_links,
    followers,
    forgotten,
    heartbeat,
    keeper,
    kernel_routes,
    last_list,
    notify,
    own_address,
    pacing,
    probes,
    registration,
    server,
    services_if_on,
)
from pycni.agent.cluster_store import Memory
from pycni.agent.current import Current
from pycni.agent.kernel_routes import Waker
from pycni.agent.known import Known
from pycni.agent.loops import Loop, start
from pycni.agent.place import Place
from pycni.agent.probes import Traffic
from pycni.bgp import file as bird_file
from pycni.errors import PlaceLost, PycniError
from pycni.kernel import memory
from pycni.kernel.forgetting import Forgetting
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted
from pycni.node import last_list as last_list_file
from pycni.node.record import Node
from pycni.node.report import Report
from pycni.settings import Settings, make_directories
from pycni.setup import cautions, container, provision
from pycni.upkeep import installed

KERNEL_WAIT = 1.0
"""Seconds, the longest wait of a loop that only this node's kernel can fail."""
STORE_WAIT = 10.0
"""The same for loops that all nodes may begin again at once, when a store is back."""

log = logging.getLogger(__name__)


def run(
    read: Callable[[], Settings],
    *,
    setup: bool = True,
    served: Callable[[Settings], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, in the node's network namespace and on the main thread.

    Sets the node up first, unless told not to. `read` reads the settings: at the start, and after
    each setup by somebody else. `served` is called once, when calls are taken. Raises PycniError or
    LoaderError if that fails, or SetupError if another agent serves this node.
    """
    memory.keep_little()
    settings = read()
    container.check(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    make_directories(settings)
    with server.only_agent(settings):
        for caution in cautions.look(settings):
            log.warning("caution found=%s", quoted(caution))
        if stop.wait(pacing.seconds(settings)):
            return
        registered = threading.Event()
        unregistered = _set_up(settings) if setup else None
        if unregistered is None:
            registered.set()
        node = Node.load(settings)
        with server.listening(settings.socket_path) as listener:
            forgetting = Forgetting()
            installed.close(settings)  # of a former agent; the plugin may be another one by now
            current = Current(settings, read)
            start(loops(current, forgetting, registered, unregistered), stop)
            log.info("serving node=%s socket=%s", quoted(node.name), quoted(settings.socket_path))
            served(settings)
            notify.ready()
            server.serve(listener, current, stop, forgetting=forgetting)
        # the loop that listens there ends with the process, and tidies nothing up
        settings.event_socket_path.unlink(missing_ok=True)
    log.info("stopped node=%s", quoted(node.name))


def _set_up(settings: Settings) -> PycniError | None:
    """Set the node up; returns why the store does not know of it, None if it does."""
    needs_store = not last_list_file.is_kept(settings)
    return provision.setup(settings, report=_log_step, needs_store=needs_store).unregistered


def _log_step(step: str) -> None:
    log.info("setup step=%s", quoted(step))


def loops(
    current: Current,
    forgetting: Forgetting,
    registered: threading.Event,
    unregistered: PycniError | None = None,
) -> list[Loop]:
    """All that an agent does besides answering the plugin; `registered`: whether the store knows of
    the last setup; `unregistered`: why it did not."""
    settings = current.settings
    waker, known = Waker(), Known()
    report = Report(settings)
    cluster = Memory(report, known)
    store = partial(cluster_store.follow, settings, changed=waker.tell_nodes, memory=cluster)
    place = Place(report, known)
    if isinstance(unregistered, PlaceLost):
        place.lose(unregistered)
    beat = partial(
        heartbeat.follow,
        settings,
        report=report,
        place=place,
        limit=LineLimit(),
        registered=registered,
    )
    traffic = Traffic()
    routes = partial(
        kernel_routes.follow,
        settings,
        waker=waker,
        others=lambda: cluster.others,
        used=traffic.add,
    )
    address = partial(own_address.follow, settings, known=known, moved=waker.wake)
    probe = partial(
        probes.follow, settings, others=lambda: cluster.others, traffic=traffic, report=report
    )
    made = [
        Loop("store", store, STORE_WAIT),
        Loop("heartbeat", beat, STORE_WAIT),
        Loop("ended-links", partial(ended_links.follow, settings, forgetting), KERNEL_WAIT),
        Loop("forgetting", partial(forgotten.follow, forgetting), KERNEL_WAIT),
        Loop("changed-links", partial(changed_links.follow, settings), KERNEL_WAIT),
        Loop("kernel-routes", routes, KERNEL_WAIT),
        Loop("own-address", address, STORE_WAIT),
        Loop(
            "keeper", partial(keeper.follow, current, known=known, changed=waker.wake), KERNEL_WAIT
        ),
        Loop("followers", partial(followers.follow, settings), KERNEL_WAIT),
        Loop(
            "services",
            partial(services_if_on.follow, current, known=known, report=report),
            STORE_WAIT,
        ),
    ]
    if settings.bgp is not None or bird_file.config_path(settings).exists():
        from pycni.agent import speaking  # sqlite3 and the BGP store, which most nodes do not need

        made.append(Loop("bgp", partial(speaking.follow, settings, known=known), KERNEL_WAIT))
    if settings.has_bgp_resources:
        from pycni.agent import bgp_peers  # HTTP and TLS, which no other store needs

        made.append(Loop("bgp-peers", partial(bgp_peers.follow, settings), STORE_WAIT))
    if last_list_file.is_kept(settings):
        made += [
            Loop("last-list", partial(last_list.follow, settings, known=known), KERNEL_WAIT),
            Loop(
                "registration",
                partial(registration.follow, settings, place=place, registered=registered),
                STORE_WAIT,
            ),
            Loop(
                "blocks",
                partial(blocks.follow, settings, report=report, known=known, registered=registered),
                STORE_WAIT,
            ),
        ]
    return [*made, Loop("probes", probe, STORE_WAIT)] if settings.probe_interval else made
