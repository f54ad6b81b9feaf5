"""`pycni install` and its undo, `pycni uninstall`: files that a runtime and systemd look for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli.invocation import Invocation, note, output_option, pass_invocation
from pycni.names import SETTINGS_PATH

if TYPE_CHECKING:
    from pycni.settings import Settings

BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")
UNIT_DIR = Path("/etc/systemd/system")


def _directory(name: str, default: Path, what: str) -> Callable[..., Any]:
    """An option that names a directory."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option(name, type=kind, default=default, show_default=True, help=what)


bin_dir_option = _directory("--bin-dir", BIN_DIR, "Directory of the runtime's CNI plugins.")
conf_dir_option = _directory("--conf-dir", CONF_DIR, "Directory of its network configurations.")
unit_dir_option = _directory("--unit-dir", UNIT_DIR, "Directory of systemd's units.")


@click.command()
@bin_dir_option
@conf_dir_option
@click.option("--name", default="pycni", show_default=True, help="Name of the network.")
@click.option("--mtu", type=int, help="MTU of pods in bytes. Default: the overlay's MTU.")
@click.option(
    "--ip-masq/--no-ip-masq",
    default=True,
    show_default=True,
    help="Hide pods behind the node's address outside of the cluster.",
)
@click.option("--systemd", is_flag=True, help="Install the units pycni-setup and pycni-agent, too.")
@unit_dir_option
@output_option
@pass_invocation
def install(
    invocation: Invocation, /, *, bin_dir: Path, conf_dir: Path, unit_dir: Path, **network: Any
) -> None:
    """Install the CNI plugin and its network configuration."""
    from pycni.setup import install as installation
    from pycni.setup import units

    settings = invocation.settings()
    config = None if invocation.path is None else invocation.path.absolute()
    mtu, systemd = network["mtu"], network["systemd"]
    if mtu is not None:
        _check_mtu(settings, mtu)
    services = units.plan(unit_dir, settings, config=config) if systemd else {}
    written = installation.install(
        bin_dir,
        conf_dir,
        socket=settings.socket_path,
        settings=config or SETTINGS_PATH,
        network=installation.Network(name=network["name"], ip_masq=network["ip_masq"], mtu=mtu),
        report=note,
    )
    files = [str(file) for file in (*written, *units.install(services))]
    lines = [f"wrote {file}" for file in files]
    if systemd:
        lines.append(
            "now: systemctl daemon-reload && systemctl enable --now pycni-setup pycni-agent"
        )
    invocation.say(*lines, written=files)


@click.command()
@bin_dir_option
@conf_dir_option
@unit_dir_option
@output_option
@pass_invocation
def uninstall(invocation: Invocation, bin_dir: Path, conf_dir: Path, unit_dir: Path) -> None:
    """Remove what `pycni install` wrote. Files that others changed or wrote stay."""
    from pycni.setup import install as installation
    from pycni.setup import units

    services = units.uninstall(unit_dir)
    files = [str(file) for file in (*installation.uninstall(bin_dir, conf_dir), *services)]
    lines = [f"removed {file}" for file in files] or ["nothing of pycni is installed there"]
    if services:
        lines.append("now: systemctl daemon-reload")
    invocation.say(*lines, removed=files)


def _check_mtu(settings: Settings, mtu: int) -> None:
    """Raise InvalidConfig for an MTU with which every ADD on this node would fail.

    On a host that is no node yet, nobody knows what fits: setup finds the uplink.
    """
    from pycni.errors import InvalidConfig
    from pycni.node.record import Node

    node = Node.load_if_any(settings)
    if node is None:
        return
    try:
        node.pod_mtu(mtu)
    except InvalidConfig as error:
        raise InvalidConfig(
            error.message, details=error.details, hint="change --mtu, or leave it out"
        ) from error
