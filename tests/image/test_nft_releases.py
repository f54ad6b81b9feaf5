# SPDX-License-Identifier: Apache-2.0
"""Releases of nft that differ on one host: the image's, kube-proxy's, an administrator's. Whoever
wrote a table of pycni, all can read it; and what others wrote does not end a process of pycni."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from image import later, nft, tables
from image.build import Built
from image.nft import NEWER, OLDER, Release
from pycni.lab import processes
from pycni.lab.cluster import Lab, pycni_command
from support import kernel, labs

CRASHED = (-11, 139)
"""SIGSEGV, of a program or as its status."""
SOURCE = Path(tables.__file__).read_text(encoding="utf-8")
RIGHT = {"faults": [], "forwards": True, "nodes": True}
OTHERS = """
    table ip kube-proxy {
        set cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }
        map verdicts { type ipv4_addr . inet_service : verdict; }
        chain services { ip daddr @cluster-ips reject; }
    }
"""
THEIR_SET = "set cluster-ips of table ip kube-proxy"

Program = Callable[[str, str], subprocess.CompletedProcess[bytes]]
"""tables.py in a network namespace, `write` or `read`."""


@pytest.fixture(scope="module")
def older() -> Release:
    return nft.provide(OLDER)


@pytest.fixture(scope="module")
def newer() -> Release:
    return nft.provide(NEWER)


@pytest.fixture(scope="module")
def in_image(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """By the image's Python and libraries."""
    root = tmp_path_factory.mktemp("image")
    later.unpack(built.archive, root)
    return lambda netns, verb: processes.run(
        netns, ["chroot", root, "/usr/bin/python3", "-I", "-c", SOURCE, verb]
    )


@pytest.fixture(scope="module")
def on_older(older: Release) -> Program:
    """By this machine's Python and the older libnftables, as pycni runs without the image."""
    return lambda netns, verb: processes.run(
        netns, [sys.executable, "-I", "-c", SOURCE, verb], env=older.environment
    )


@pytest.fixture
def netns() -> Iterator[str]:
    with kernel.netns() as path:
        yield path


def succeed(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, (done.returncode, done.stderr.decode())
    return done.stdout.decode()


def found(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What tables.py says, but the release."""
    answer: dict[str, Any] = json.loads(succeed(done))
    return {key: answer[key] for key in RIGHT}


def release(done: subprocess.CompletedProcess[bytes]) -> str:
    return str(json.loads(succeed(done))["release"])


def as_before(listing: str) -> str:
    """Tables as releases of pycni declared them before these tests."""
    for version, word in ((4, "ip"), (6, "ip6")):
        listing = listing.replace(f"typeof {word} saddr", f"type ipv{version}_addr")
    return listing


@pytest.mark.parametrize("writer", ["in_image", "on_older"])
def test_who_reads_the_tables_needs_not_the_release_that_wrote_them(
    netns: str, older: Release, newer: Release, writer: str, request: pytest.FixtureRequest
) -> None:
    programs: dict[str, Program] = {
        name: request.getfixturevalue(name) for name in ("in_image", "on_older")
    }

    assert found(programs[writer](netns, "write")) == RIGHT

    for program in programs.values():
        assert found(program(netns, "read")) == RIGHT
    assert len({release(program(netns, "read")) for program in programs.values()}) == 2
    for one in (older, newer):
        listed = succeed(one.run(netns, "-j", "list", "ruleset"))
        for word in ("pycni", "pycni_guard", "pycni_ports", "198.18.0.3", "fd00:99::2", "web"):
            assert f'"{word}"' in listed, word
        succeed(one.run(netns, script="add table ip theirs; delete table ip theirs"))
    assert found(programs[writer](netns, "write")) == RIGHT


def test_tables_of_a_former_release_are_made_anew_with_all_that_is_in_them(
    netns: str, older: Release, newer: Release, in_image: Program
) -> None:
    found(in_image(netns, "write"))
    listing = as_before(succeed(newer.run(netns, "list", "ruleset")))
    succeed(newer.run(netns, script=f"flush ruleset\n{listing}"))
    assert older.run(netns, "list", "ruleset").returncode in CRASHED

    before = found(in_image(netns, "read"))
    after = found(in_image(netns, "write"))

    assert before["faults"] == [
        f"set {name} of nftables table {table} is written so that an older nft crashes at it"
        for table in ("pycni_guard", "pycni_ports")
        for name in ("nodes4", "nodes6")
    ]
    assert before["forwards"] is before["nodes"] is True
    assert after == RIGHT
    succeed(older.run(netns, "list", "ruleset"))


def test_the_image_works_beside_what_a_newer_nft_wrote(
    netns: str, newer: Release, in_image: Program
) -> None:
    succeed(newer.run(netns, script=OTHERS))

    assert found(in_image(netns, "write")) == RIGHT


def test_an_older_library_is_not_called_where_it_would_crash(
    netns: str, older: Release, newer: Release, on_older: Program
) -> None:
    found(on_older(netns, "write"))
    succeed(newer.run(netns, script=OTHERS))
    assert older.run(netns, "list", "ruleset").returncode in CRASHED

    refused = on_older(netns, "write")

    assert refused.returncode == 1, (refused.returncode, refused.stderr)
    assert THEIR_SET in refused.stderr.decode()
    assert "libnftables1 1.1.2 or newer" in refused.stderr.decode()
    assert found(on_older(netns, "read")) == RIGHT, "our tables harm nobody"


def test_setup_and_status_say_what_keeps_an_older_library_away(
    lab: Lab, older: Release, newer: Release
) -> None:
    (node,) = lab.layout.nodes

    def pycni(*words: str) -> subprocess.CompletedProcess[bytes]:
        return processes.run(node.netns, pycni_command(node, *words), env=older.environment)

    succeed(newer.run(node.netns, script=OTHERS))
    try:
        refused = pycni("setup")
        succeed(newer.run(node.netns, script="delete table ip kube-proxy"))
        labs.setup(node)
        succeed(newer.run(node.netns, script=OTHERS))
        rows = json.loads(pycni("status", "-o", "json").stdout)
    finally:
        newer.run(node.netns, script="delete table ip kube-proxy")
        labs.teardown(node)

    assert refused.returncode == 1, (refused.returncode, refused.stderr)
    assert THEIR_SET in refused.stderr.decode()
    (row,) = (one for one in rows if one["name"] == "firewalls")
    assert row["state"] == "degraded"
    assert THEIR_SET in row["cause"]
    assert {one["state"] for one in rows if one["name"] in ("guard", "host ports")} == {"ok"}
