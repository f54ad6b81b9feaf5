"""Verbs: what changes a node."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import click

from pycni.agent import agent as node_agent
from pycni.errors import StoreError
from pycni.settings import DEFAULT_PATH, load
from pycni.setup import install as installation
from pycni.setup import provision, units
from pycni.stores import HEARTBEAT_FRESH, open_store

BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")

directory = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.pass_obj
def setup(path: Path | None) -> None:
    """Make this host a node, or bring a node up to date."""
    outcome = provision.setup(load(path), report=_progress)
    state = "loaded" if outcome.changed else "unchanged"
    click.echo(f"node {outcome.node.name} is set up, dataplane {outcome.fingerprint} {state}")


@click.command()
@click.confirmation_option("--yes", prompt="Cut off this node's pods and remove the dataplane?")
@click.pass_obj
def teardown(path: Path | None) -> None:
    """Return the host to what it was before setup."""
    settings = load(path)
    if provision.teardown(settings, report=_progress):
        click.echo(f"node {settings.node_name} is torn down")
    else:
        click.echo("this host was not set up for pycni: nothing to tear down")


@click.command()
@click.option("--setup/--no-setup", "with_setup", default=True, help="Set the node up first.")
@click.pass_obj
def agent(path: Path | None, with_setup: bool) -> None:
    """Serve the plugin and follow the cluster, until SIGTERM."""
    logging.getLogger().setLevel(logging.INFO)
    node_agent.run(load(path), setup=with_setup)


@click.command()
@click.option("--bin-dir", type=directory, default=BIN_DIR, show_default=True)
@click.option("--conf-dir", type=directory, default=CONF_DIR, show_default=True)
@click.option("--name", default="pycni", show_default=True, help="Name of the network.")
@click.option("--mtu", type=int, default=None, help="MTU of pods; the node's overlay MTU if unset.")
@click.option("--ip-masq/--no-ip-masq", default=True, help="Hide pods behind the node outside.")
@click.option("--systemd", is_flag=True, help="The units pycni-setup and pycni-agent, too.")
@click.option("--unit-dir", type=directory, default=units.UNIT_DIR, show_default=True)
@click.pass_obj
def install(
    path: Path | None,
    bin_dir: Path,
    conf_dir: Path,
    name: str,
    mtu: int | None,
    ip_masq: bool,
    systemd: bool,
    unit_dir: Path,
) -> None:
    """Install the CNI plugin and its network configuration."""
    settings = load(path)
    services = units.plan(unit_dir, settings, config=_given(path)) if systemd else {}
    written = installation.install(
        bin_dir,
        conf_dir,
        socket=settings.socket_path,
        settings=_settings_path(path),
        network_name=name,
        ip_masq=ip_masq,
        mtu=mtu,
        report=lambda note: click.echo(note, err=True),
    )
    for file in (*written, *units.install(services)):
        click.echo(f"wrote {file}")
    if systemd:
        click.echo("now: systemctl daemon-reload && systemctl enable --now pycni-setup pycni-agent")


@click.command()
@click.option("--bin-dir", type=directory, default=BIN_DIR, show_default=True)
@click.option("--conf-dir", type=directory, default=CONF_DIR, show_default=True)
@click.option("--unit-dir", type=directory, default=units.UNIT_DIR, show_default=True)
def uninstall(bin_dir: Path, conf_dir: Path, unit_dir: Path) -> None:
    """Remove the CNI plugin, its network configuration and the units, if they are pycni's."""
    services = units.uninstall(unit_dir)
    for file in (*installation.uninstall(bin_dir, conf_dir), *services):
        click.echo(f"removed {file}")
    if services:
        click.echo("now: systemctl daemon-reload")


@click.command()
@click.argument("node")
@click.pass_obj
def forget(path: Path | None, node: str) -> None:
    """Take a NODE that is gone for good out of the cluster."""
    settings = load(path)
    store = open_store(settings.store_url, settings.cluster, create=False)
    found = next((known for known in store.nodes() if known.name == node), None)
    if found is None:
        raise StoreError(f"the cluster has no node {node}", hint="`pycni nodes` lists them")
    if time.time() - found.heartbeat < HEARTBEAT_FRESH:
        raise StoreError(
            f"the agent of node {node} is alive",
            hint="run `pycni teardown` on it; forget is for nodes that cannot do it themselves",
        )
    store.remove(node)
    click.echo(f"node {node} is forgotten")


def _given(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _settings_path(path: Path | None) -> Path:
    return (path or DEFAULT_PATH).absolute()


def _progress(step: str) -> None:
    click.echo(f"{step} ...", err=True)
