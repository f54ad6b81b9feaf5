# SPDX-License-Identifier: Apache-2.0
"""`pycni setup` and its undo, `pycni teardown`."""

from __future__ import annotations

from pathlib import Path

import click

from pycni.cli import privilege
from pycni.cli.invocation import (
    Invocation,
    dry_run_option,
    note,
    output_option,
    pass_invocation,
    warn,
)
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN

NOTHING = "this host was not set up for pycni: nothing to tear down"

STAYS = (
    "stays: with it, the runtime takes this host for ready, and no pod can start. Remove it, and "
    "the plugin: pycni uninstall"
)


@click.command()
@dry_run_option
@output_option
@pass_invocation
def setup(invocation: Invocation, /, *, dry_run: bool) -> None:
    """Make this host a node, or bring a node up to date."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.setup import cautions, container, preview, provision

    settings = invocation.settings()
    container.check(settings)
    warnings = cautions.look(settings)
    if dry_run:
        steps = preview.steps(settings)
        for text in warnings:
            warn(text)
        lines = [f"would {step}" for step in steps] or ["setup would change nothing"]
        invocation.say(
            *lines, node=settings.node_name, steps=steps, warnings=warnings, dry_run=True
        )
        return
    outcome = provision.setup(settings, report=_progress)
    state = "loaded" if outcome.changed else "unchanged"
    for text in warnings:
        warn(text)
    invocation.say(
        f"node {outcome.node.name} is set up, dataplane {outcome.fingerprint} {state}",
        node=outcome.node.name,
        dataplane=outcome.fingerprint,
        changed=outcome.changed,
        warnings=warnings,
        dry_run=False,
    )


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@output_option
@pass_invocation
def teardown(invocation: Invocation, /, *, yes: bool, dry_run: bool) -> None:
    """Return the host to what it was before setup."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.setup import undoing

    settings = invocation.settings()
    steps = undoing.words(settings)
    if dry_run:
        lines = [f"would {step}" for step in steps] or [NOTHING]
        invocation.say(*lines, node=settings.node_name, steps=steps, dry_run=True)
        return
    if steps and not yes:  # stdout is for what programs read
        question = "Cut off this node's pods and remove the dataplane?"
        click.confirm(question, abort=True, err=True)
    found = undoing.teardown(settings, report=_progress)
    for path in _lists():
        warn(f"the network list {path} {STAYS}")
    done = f"node {settings.node_name} is torn down" if found else NOTHING
    invocation.say(done, node=settings.node_name, changed=found, dry_run=False)


def _lists() -> list[Path]:
    """The network lists of this host's runtime that use the plugin."""
    from pycni.cni import network_lists
    from pycni.setup import runtimes
    from pycni.setup.conflist import PLUGIN

    return network_lists.users(runtimes.find().runtime.conf_dir, PLUGIN)


def _progress(step: str) -> None:
    note(f"{step} ...")
