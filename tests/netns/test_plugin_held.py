# SPDX-License-Identifier: Apache-2.0
"""An agent that wrote the network list keeps it and the plugin in their places."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pycni.agent.keeper import GLANCE
from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from pycni.setup.install import CONFLIST, PATHS, PLUGIN
from pycni.upkeep import book, installed
from support.labs import prepared_lab
from support.waiting import wait_until

SECONDS = 10.0
"""A glance is every two."""


@contextmanager
def agent(lab: Lab, node: LabNode, *options: str) -> Iterator[None]:
    """An agent that runs inside of the block."""
    command = pycni_command(node, "--verbose", "agent", "--no-setup", *options)
    lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
    cluster.wait_for_agent(lab, node)
    try:
        yield
    finally:
        lab.stop_agent(node)


@contextmanager
def agent_with_list(lab: Lab, node: LabNode) -> Iterator[None]:
    directories = (f"--bin-dir={node.bin_dir}", f"--conf-dir={node.conf_dir}")
    with agent(lab, node, "--install-list", *directories):
        wait_until(lambda: installed.load(load(node.settings_path)) is not None, "it holds them")
        yield


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with prepared_lab(nodes=1, pods=1) as made:
        made.pycni(made.layout.nodes[0], "setup")
        yield made


@pytest.fixture
def node(lab: Lab) -> LabNode:
    (made,) = lab.layout.nodes
    return made


@pytest.fixture
def pod(lab: Lab) -> Pod:
    (made,) = lab.layout.pods
    return made


@pytest.fixture
def files(node: LabNode) -> list[Path]:
    return [node.bin_dir / PATHS, node.bin_dir / PLUGIN, node.conf_dir / CONFLIST]


def told(node: LabNode) -> list[str]:
    """The agent's lines about these files."""
    lines = node.log_path.read_text().splitlines()
    return [line for line in lines if "mended part=plugin" in line]


def row(node: LabNode) -> dict[str, str]:
    """The row of `pycni status`."""
    command = pycni_command(node, "status", "-o", "json")
    rows: list[dict[str, str]] = json.loads(processes.run(node.netns, command).stdout)
    return next(one for one in rows if one["name"] == "plugin")


def is_whole(files: list[Path], before: list[bytes]) -> bool:
    return all(
        path.exists() and path.read_bytes() == content
        for path, content in zip(files, before, strict=True)
    )


def test_what_is_taken_away_comes_back_and_serves(
    lab: Lab, node: LabNode, pod: Pod, files: list[Path]
) -> None:
    with agent_with_list(lab, node):
        before = [path.read_bytes() for path in files]
        assert row(node)["cause"] == f"{node.bin_dir / PLUGIN}, {node.conf_dir / CONFLIST}"

        for path in files:
            path.unlink()
        wait_until(lambda: is_whole(files, before), "they are back", seconds=SECONDS)
        wait_until(lambda: "mended 3 times" in row(node)["cause"], "it is told")

        assert len(told(node)) == 3
        for path in files:
            assert sum(f"thing={path} found=gone" in line for line in told(node)) == 1
        lab.attach(pod)
        lab.detach(pod)


def test_somebody_elses_plugin_is_left_and_told(lab: Lab, node: LabNode, files: list[Path]) -> None:
    plugin = node.bin_dir / PLUGIN
    with agent_with_list(lab, node):
        before = [path.read_bytes() for path in files]
        count = len(told(node))

        plugin.write_bytes(b"#!/bin/sh\nexec /opt/another-plugin\n")
        wait_until(lambda: row(node)["state"] == "degraded", "it is told", seconds=SECONDS)
        time.sleep(2 * GLANCE)

        assert "somebody else's file" in row(node)["cause"]
        assert "move it away" in row(node)["to_do"]
        assert plugin.read_bytes().startswith(b"#!/bin/sh")
        assert len(told(node)) == count
        plugin.rename(plugin.with_name("another"))
        wait_until(lambda: is_whole(files, before), "pycni's is back", seconds=SECONDS)
    plugin.with_name("another").unlink()


def test_a_quarrel_about_a_file_is_given_up(lab: Lab, node: LabNode, files: list[Path]) -> None:
    listed = files[-1]
    with agent_with_list(lab, node):
        book.close(load(node.settings_path))
        before = listed.read_bytes()
        for _ in range(book.OFTEN):
            listed.unlink()
            wait_until(listed.exists, "the list is back", seconds=SECONDS)

        def told_while_it_is_taken_away() -> bool:  # a mend may not have been counted
            listed.unlink(missing_ok=True)
            return "leaves it for now" in row(node)["cause"]

        wait_until(told_while_it_is_taken_away, "it is told", seconds=4 * SECONDS)
        assert not listed.exists()
        book.close(load(node.settings_path))
        wait_until(listed.exists, "the list is back", seconds=40.0)
        assert listed.read_bytes() == before


def by_uninstall(lab: Lab, node: LabNode) -> None:
    lab.pycni(node, "uninstall", f"--bin-dir={node.bin_dir}", f"--conf-dir={node.conf_dir}")


def by_an_agent_without_the_list(lab: Lab, node: LabNode) -> None:
    lab.stop_agent(node)
    command = pycni_command(node, "--verbose", "agent", "--no-setup")
    lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
    cluster.wait_for_agent(lab, node)
    for path in (node.conf_dir / CONFLIST, node.bin_dir / PLUGIN, node.bin_dir / PATHS):
        path.unlink()


@pytest.mark.parametrize("end", [by_uninstall, by_an_agent_without_the_list])
def test_what_nobody_holds_any_more_stays_away(
    lab: Lab, node: LabNode, files: list[Path], end: Callable[[Lab, LabNode], None]
) -> None:
    before = [path.read_bytes() for path in files]
    try:
        with agent_with_list(lab, node):
            end(lab, node)
            time.sleep(3 * GLANCE)

            assert [path for path in files if path.exists()] == []
            assert row(node)["state"] == "ok"
            assert "not watched" in row(node)["cause"]
    finally:
        for path, content in zip(files, before, strict=True):
            path.write_bytes(content)
        files[1].chmod(0o755)
