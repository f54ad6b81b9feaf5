# SPDX-License-Identifier: Apache-2.0
"""`pycni install` and its undo, `pycni uninstall`: files that a runtime and systemd look for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli.invocation import (
    Invocation,
    dry_run_option,
    note,
    output_option,
    pass_invocation,
    warn,
)
from pycni.names import SETTINGS_PATH

if TYPE_CHECKING:
    from pycni.settings import Settings
    from pycni.setup.install import File, Request
    from pycni.setup.runtimes import Found

PLUGIN, LIST = "plugin", "list"
EARLY = (
    "this host is not set up yet. With the list, its runtime starts pods at once, and they fail "
    "until `pycni setup` has run. Better: `--only plugin` now, and `--only list` after setup"
)
UNSAID = {"name": None, "ip_masq": None, "mtu": None, "force": False, "no_python": True}
"""What `agent` says of the options of `install`."""

UNIT_DIR = Path("/etc/systemd/system")


def _directory(name: str, what: str, default: Path | None = None) -> Callable[..., Any]:
    """An option that names a directory."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option(name, type=kind, default=default, show_default=bool(default), help=what)


RUNTIMES = "Default: the runtime's, as its configuration says."
bin_dir_option = _directory("--bin-dir", f"Directory of the runtime's CNI plugins. {RUNTIMES}")
conf_dir_option = _directory("--conf-dir", f"Directory of its network lists. {RUNTIMES}")
unit_dir_option = _directory("--unit-dir", "Directory of systemd's units.", UNIT_DIR)


@click.command()
@bin_dir_option
@conf_dir_option
@click.option(
    "--only",
    type=click.Choice([PLUGIN, LIST]),
    help="Write the plugin or the list alone. A runtime calls the plugin as soon as the list is "
    "there: write that last, when the node can serve.",
)
@click.option("--name", help="Name of the network.  [default: pycni]")
@click.option("--mtu", type=int, help="MTU of pods in bytes. Default: the overlay's MTU.")
@click.option(
    "--ip-masq/--no-ip-masq",
    default=None,
    help="Hide pods behind the node's address outside of the cluster.  [default: ip-masq]",
)
@click.option("--force", is_flag=True, help="Write the list anew, and keep a copy of the old one.")
@click.option(
    "--no-python",
    is_flag=True,
    help="The host has no Python with pycni, as when the agent runs in a container: without an "
    "agent the plugin does what it can by itself.",
)
@click.option(
    "--systemd",
    is_flag=True,
    help="Install the units pycni-setup and pycni-agent, too, and pycni-bird if the settings have "
    "[bgp].",
)
@unit_dir_option
@dry_run_option
@output_option
@pass_invocation
def install(invocation: Invocation, /, *, dry_run: bool, **options: Any) -> None:
    """Install the CNI plugin and its network list.

    A list that is there stays as it is, but for what --name, --mtu and --ip-masq ask for. Before
    it is changed, a copy of it is kept.
    """
    from pycni.cni import network_lists
    from pycni.setup import conflist, pod_mtu, runtimes, units
    from pycni.setup import install as installation

    settings = invocation.settings()
    config = None if invocation.path is None else invocation.path.absolute()
    services = {}
    if options["systemd"]:
        services = units.plan(options["unit_dir"], settings, config=config)
    found = runtimes.find()
    request = _request(settings, config, found, options)
    files = installation.plan(request, report=note)
    (*_, listed) = files
    if (mtu := conflist.mtu(listed.content)) is not None:
        pod_mtu.check(settings, mtu, hint=f"change --mtu, or the list {listed.path}")
    warnings = [
        *found.doubts,
        *_strays(found, request),
        *network_lists.warnings(listed.path, settings.cluster, plugin=installation.PLUGIN),
    ]
    plan = files
    files, told = _part(plan, options["only"])
    _refuse_unwritable([*(file.path for file in files if not file.unchanged), *services])
    if not dry_run:
        installation.write(files)
        installation.hold_again(settings, plan)
        units.install(services)
    for text in warnings:
        warn(text)
    if options["only"] != PLUGIN and not _is_node(settings):
        note(EARLY)
    _tell(invocation, told, services, warnings=warnings, dry_run=dry_run)


@click.command()
@bin_dir_option
@conf_dir_option
@unit_dir_option
@dry_run_option
@output_option
@pass_invocation
def uninstall(invocation: Invocation, /, *, dry_run: bool, **where: Any) -> None:
    """Remove what `pycni install` wrote. Files that others changed or wrote stay."""
    from pycni.setup import install as installation
    from pycni.setup import runtimes, units

    runtime = runtimes.find().runtime
    bin_dir = where["bin_dir"] or runtime.bin_dir
    conf_dir = where["conf_dir"] or runtime.conf_dir
    removal = installation.plan_removal(bin_dir, conf_dir)
    services = units.plan_removal(where["unit_dir"])
    _refuse_unwritable([*removal.paths, *services])
    if not dry_run:
        installation.let_go(invocation.settings(), removal)
        units.remove(services)
        installation.remove(removal)
    gone = [str(path) for path in (*removal.paths, *services)]
    left = removal.stays | (_what_stays(invocation) if gone else {})
    stays = {str(path): why for path, why in left.items()}
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {path}" for path in gone] or [
        f"nothing that `pycni install` wrote is in {bin_dir}, {conf_dir} or {where['unit_dir']}"
    ]
    lines += [f"stays: {path}: {why}" for path, why in stays.items()]
    if services and not dry_run:
        lines.append("now: systemctl daemon-reload")
    invocation.say(*lines, removed=gone, stays=stays, dry_run=dry_run)


def write_list(settings: Settings, config: Path | None, options: dict[str, Any]) -> list[Path]:
    """Write the network list as `install --only list` does, and have the agent hold it and the
    plugin; returns its path if it was written.

    Warns of what keeps a runtime from using it. Raises FileError, InvalidConfig or
    IncompatibleVersion.
    """
    from pycni.cni import network_lists
    from pycni.setup import install as installation
    from pycni.setup import pod_mtu, runtimes
    from pycni.setup.conflist import mtu

    request = _request(settings, config, runtimes.find(), UNSAID | options)
    plan = installation.plan(request)
    files, (listed,) = _part(plan, LIST)
    if (asked := mtu(listed.content)) is not None:
        pod_mtu.check(settings, asked, hint=f"change the list {listed.path}")
    for text in network_lists.warnings(listed.path, settings.cluster, plugin=installation.PLUGIN):
        warn(text)
    written = installation.write(files)
    installation.hold(settings, plan)
    return written


def _refuse_unwritable(paths: Iterable[Path]) -> None:
    """Raise FileError for a directory in which nothing can be written or removed, so that a dry run
    finds what the real one would, and the real one finds it before it begins."""
    from pycni.directories import refuse_unwritable

    for directory in dict.fromkeys(path.parent for path in paths):
        refuse_unwritable(directory)


def _is_node(settings: Settings) -> bool:
    from pycni.node.record import Node

    return Node.load_if_any(settings) is not None


def _part(files: list[File], only: str | None) -> tuple[list[File], list[File]]:
    """What to write of a plan, and what to tell of it. The list is the last of a plan."""
    if only == PLUGIN:
        return files[:-1], files[:-1]
    if only == LIST:
        return [*(replace(file, unchanged=True) for file in files[:-1]), files[-1]], files[-1:]
    return files, files


def _request(
    settings: Settings, config: Path | None, found: Found, options: dict[str, Any]
) -> Request:
    from pycni.setup.install import Network, Places, Request

    runtime = found.runtime
    note(
        f"{runtime.name} looks for plugins in {runtime.bin_dir} and for lists in "
        f"{runtime.conf_dir} ({runtime.source})"
    )
    return Request(
        options["bin_dir"] or runtime.bin_dir,
        options["conf_dir"] or runtime.conf_dir,
        Places.of(settings, config or SETTINGS_PATH, without_python=options["no_python"]),
        Network(name=options["name"], ip_masq=options["ip_masq"], mtu=options["mtu"]),
        force=options["force"],
    )


def _strays(found: Found, request: Request) -> list[str]:
    """Where a runtime of this host would not find what is installed."""
    warnings = []
    for runtime in (found.runtime, *found.others):
        pairs = (("plugins", runtime.bin_dir, request.bin_dir),
                 ("lists", runtime.conf_dir, request.conf_dir))  # fmt: skip
        warnings += [
            f"{runtime.name} looks for {what} in {theirs}, not in {ours}: {runtime.source}"
            for what, theirs, ours in pairs
            if theirs != ours and runtime.is_there
        ]
        name = request.network.name or "pycni"
        if runtime.network not in ("", name):
            warnings.append(
                f"{runtime.name} uses only the network {runtime.network}: give --name "
                f"{runtime.network}, or take cni_default_network out of {runtime.source}"
            )
    return warnings


def _tell(
    invocation: Invocation,
    files: Iterable[File],
    services: dict[Path, str],
    *,
    warnings: list[str],
    dry_run: bool,
) -> None:
    files = list(files)
    written = [str(file.path) for file in files if not file.unchanged] + list(map(str, services))
    kept = {str(file.path): str(file.backup) for file in files if file.backup}
    unchanged = [str(file.path) for file in files if file.unchanged]
    verb = "would write" if dry_run else "wrote"
    lines = [f"{verb} {path}" for path in written]
    lines += [f"the list {path} is there and stays as it is" for path in unchanged]
    lines += [f"a copy of {path} as it was: {copy}" for path, copy in kept.items()]
    if services and not dry_run:
        lines.append(
            "now: systemctl daemon-reload && systemctl enable --now pycni-setup pycni-agent"
        )
    invocation.say(
        *lines, written=written, unchanged=unchanged, copies=kept, warnings=warnings,
        dry_run=dry_run,
    )  # fmt: skip


def _what_stays(invocation: Invocation) -> dict[Path, str]:
    """What is of pycni and is not `uninstall`'s to remove."""
    settings = invocation.settings()
    reasons = {
        invocation.path or SETTINGS_PATH: "your settings",
        settings.state_dir: "the node's record and the embedded store; `pycni teardown` first, if "
        "this host is still a node",
        settings.cache_dir: "compiled programs",
    }
    return {path: why for path, why in reasons.items() if path.exists()}
