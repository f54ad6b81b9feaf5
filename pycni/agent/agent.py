"""The node agent: answers the plugin, follows the cluster, keeps the tables true.

Forwarding never needs it: what it writes stays in the kernel when it ends. Threads: one per plugin
call, and one each for the store, heartbeats, link events, next hops, this node's address and what
others do to the pods' links; each failure is logged and retried, and none of them deletes anything
on the strength of a list it could not read to its end.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pycni import locks
from pycni.agent import notify
from pycni.attachments import dispatch, upkeep
from pycni.cni import rpc
from pycni.errors import PycniError, SetupError
from pycni.files import make_private_directory
from pycni.ipam import delegation_records
from pycni.kernel import link_events
from pycni.kernel.netlink import Link
from pycni.kernel.rtnl import Rtnl
from pycni.names import ALIAS_HEAD, NAME_HEAD
from pycni.node import next_hops, peers
from pycni.node.record import Node
from pycni.pods import link_changes
from pycni.pods.lease import Lease, find_lease_at, read_lease
from pycni.pods.link_changes import Change
from pycni.settings import Settings
from pycni.setup import address_change, provision
from pycni.stores import HEARTBEAT_INTERVAL, Synced, open_store

RETRY_INTERVAL = 1.0
"""Seconds until a failed loop tries again."""

CALLS_AT_ONCE = 64
ACCEPT_INTERVAL = 0.2
"""Seconds between two looks at whether to stop."""

log = logging.getLogger(__name__)


def run(settings: Settings, *, setup: bool = True) -> None:
    """Serve until SIGTERM or SIGINT, in the node's network namespace and on the main thread.

    Sets the node up first, unless told not to. Raises PycniError or LoaderError if that fails, or
    SetupError if another agent serves this node.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if setup:
        provision.setup(settings, report=log.info)
    node = Node.load(settings)
    waker = next_hops.Waker()
    rejections = peers.RejectionNews()
    with _listen(settings.socket_path) as listener:
        loops = [
            threading.Thread(target=_keep, args=(what, work, stop), name=what, daemon=True)
            for what, work in (
                ("cluster", lambda: _follow_cluster(settings, stop, waker, rejections)),
                ("heartbeat", lambda: _beat(settings, node, stop)),
                ("links", lambda: _follow_links(settings, stop)),
                ("nexthops", lambda: next_hops.follow(settings, stop, waker)),
                ("address", lambda: address_change.follow(settings, stop, waker.wake)),
                ("alterations", lambda: _follow_alterations(settings, stop)),
            )
        ]
        for loop in loops:
            loop.start()
        log.info("serving node=%s socket=%s", node.name, settings.socket_path)
        notify.ready()
        _serve(listener, settings, stop)
    log.info("stopped node=%s", node.name)


@contextlib.contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    """The agent's socket, mode 0600 in a 0700 directory; removed at the end."""
    make_private_directory(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise SetupError(
                f"another agent serves {path}", hint="stop it first: one agent runs per node"
            )
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(CALLS_AT_ONCE)
        listener.settimeout(ACCEPT_INTERVAL)
        mark = _mark(path)
        try:
            yield listener
        finally:
            if _mark(path) == mark:
                path.unlink(missing_ok=True)


def _mark(path: Path) -> tuple[int, int] | None:
    """Tells the file at `path` from any other that comes after it; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def _serve(listener: socket.socket, settings: Settings, stop: threading.Event) -> None:
    """Answer calls until `stop`, or until the socket's file is gone: teardown has taken it."""
    mark = _mark(settings.socket_path)
    slots = threading.BoundedSemaphore(CALLS_AT_ONCE)
    calls: set[threading.Thread] = set()

    def answer(connection: socket.socket) -> None:
        try:
            rpc.serve_connection(
                connection,
                lambda env, stdin, netns: dispatch.answer(env, stdin, netns, settings=settings),
            )
        except Exception:
            log.exception("a call failed")
        finally:
            slots.release()

    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if _mark(settings.socket_path) != mark:
                log.warning("socket=%s is gone, stopping", settings.socket_path)
                stop.set()
            continue
        slots.acquire()
        call = threading.Thread(target=answer, args=(connection,), daemon=True)
        calls = {thread for thread in calls if thread.is_alive()} | {call}
        call.start()
    for call in calls:
        call.join()


def _keep(what: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Run a loop again after each failure, until `stop`."""
    while not stop.is_set():
        try:
            work()
        except (PycniError, OSError) as error:
            log.warning("%s failed, trying again in %g s error=%s", what, RETRY_INTERVAL, error)
        except Exception:
            log.exception("%s failed, trying again in %g s", what, RETRY_INTERVAL)
        stop.wait(RETRY_INTERVAL)


def _follow_cluster(
    settings: Settings,
    stop: threading.Event,
    waker: next_hops.Waker,
    rejections: peers.RejectionNews,
) -> None:
    members = peers.Membership(settings.node_name)
    agrees = False
    """Whether the tables were as told at the last Synced."""
    for event in open_store(settings.store_url, settings.cluster, create=False).watch(stop):
        members.feed(event)
        if not isinstance(event, Synced):
            continue
        for name, reason in rejections.take(members.rejected):
            if reason:
                log.warning("record set aside node=%s reason=%s", name, reason)
            else:
                log.info("record no longer set aside node=%s", name)
        if not members.knows_us:
            log.warning("store=%s does not know this node, so nothing it says is believed; "
                        "run: pycni setup", settings.store_url)  # fmt: skip
            continue
        before, after = members.take_changes()
        # a setup may be replacing the maps
        with locks.network_lock(settings.run_dir, shared=True):
            if agrees:
                changed = peers.write_changes(settings.pin_root, before, after)
            else:
                changed = peers.write(settings.pin_root, members.others, synced=True)
        agrees = True
        if changed:
            waker.wake()
            log.info("nodes=%d entries_changed=%d", len(members.others), changed)


def _beat(settings: Settings, node: Node, stop: threading.Event) -> None:
    store = open_store(settings.store_url, settings.cluster, create=False)
    while not stop.is_set():
        store.heartbeat(node.name)
        stop.wait(HEARTBEAT_INTERVAL)


def _follow_links(settings: Settings, stop: threading.Event) -> None:
    """Release what had no link when this began, then what a link had whenever one goes: a pod's
    namespace may have ended without a DEL."""
    with link_events.subscribe() as events, Rtnl() as ipr:
        _sweep(ipr, settings)
        while not stop.is_set():
            try:
                links = list(link_events.gone(events))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("link events were lost, looking for what ended meanwhile")
                _sweep(ipr, settings)
            else:
                _release(ipr, settings, links)


def _follow_alterations(settings: Settings, stop: threading.Event) -> None:
    """Have endpoints follow what others do to the pods' links: all of them once, then each as the
    kernel tells of it."""
    known: dict[int, str] = {}
    """MACs that were looked at: most of what is said of links is nothing new."""
    with link_changes.subscribe() as events, Rtnl() as ipr:
        _follow_all(ipr, settings)
        while not stop.is_set():
            try:
                changes = list(link_changes.changes(events))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("events were lost, looking at all links")
                _follow_all(ipr, settings)
                continue
            for change in changes:
                if change.mac is None or known.get(change.ifindex) != change.mac:
                    lease = find_lease_at(ipr, change.ifindex)
                    if lease and _follow(ipr, settings, lease, change) and change.mac:
                        known[change.ifindex] = change.mac


def _follow_all(ipr: Rtnl, settings: Settings) -> None:
    for problem in upkeep.follow_all(ipr, settings):
        log.warning("a link is not followed error=%s", problem)


def _follow(ipr: Rtnl, settings: Settings, lease: Lease, change: Change) -> bool:
    """False if it failed."""
    try:
        if upkeep.follow(ipr, settings, lease, queued=change.queued):
            log.info("followed link=%s container=%s", lease.host_ifname, lease.container_id)
    except PycniError as error:
        log.warning("link=%s is not followed error=%s", lease.host_ifname, error)
        return False
    return True


def _release(ipr: Rtnl, settings: Settings, links: Iterable[Link]) -> None:
    """What pods had whose links are gone, by their aliases; one without was never claimed, or was
    edited, and takes a sweep, as one does that was renamed."""
    gone = [
        read_lease(link)
        for link in links
        if link.get("ifname", "").startswith(NAME_HEAD)
        or link.get("ifalias", "").startswith(ALIAS_HEAD)
    ]
    if None in gone:
        _sweep(ipr, settings)
    elif gone:
        addresses = sum(upkeep.release(ipr, settings, lease) for lease in gone if lease)
        _release_delegated(settings, addresses)


def _sweep(ipr: Rtnl, settings: Settings) -> None:
    _release_delegated(settings, upkeep.sweep(ipr, settings))


def _release_delegated(settings: Settings, addresses: int) -> None:
    """The last step of a release, in which `addresses` were given back."""
    delegated = delegation_records.release_orphans(settings)
    if addresses or delegated:
        log.info("released addresses=%d delegated=%d", addresses, delegated)
