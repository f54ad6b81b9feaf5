# SPDX-License-Identifier: Apache-2.0
"""`pycni setup` and its undo, `pycni teardown`."""

from __future__ import annotations

import click

from pycni.cli import privilege
from pycni.cli.invocation import Invocation, note, output_option, pass_invocation
from pycni.cli.privilege import CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN


@click.command()
@output_option
@pass_invocation
def setup(invocation: Invocation) -> None:
    """Make this host a node, or bring a node up to date."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    from pycni.setup import provision

    outcome = provision.setup(invocation.settings(), report=_progress)
    state = "loaded" if outcome.changed else "unchanged"
    invocation.say(
        f"node {outcome.node.name} is set up, dataplane {outcome.fingerprint} {state}",
        node=outcome.node.name,
        dataplane=outcome.fingerprint,
        changed=outcome.changed,
    )


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@pass_invocation
def teardown(invocation: Invocation, /, *, yes: bool) -> None:
    """Return the host to what it was before setup."""
    privilege.require(CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)
    if not yes:  # stdout is for what programs read
        question = "Cut off this node's pods and remove the dataplane?"
        click.confirm(question, abort=True, err=True)
    from pycni.setup import provision

    settings = invocation.settings()
    found = provision.teardown(settings, report=_progress)
    done = f"node {settings.node_name} is torn down"
    if not found:
        done = "this host was not set up for pycni: nothing to tear down"
    invocation.say(done, node=settings.node_name, changed=found)


def _progress(step: str) -> None:
    note(f"{step} ...")
