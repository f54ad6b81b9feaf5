# SPDX-License-Identifier: Apache-2.0
"""`pycni config`: what the settings say, where each value comes from, and whether all is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli import failure
from pycni.cli.invocation import Invocation, output_option, pass_invocation
from pycni.cli.output import shorten, to_json
from pycni.names import SETTINGS_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycni.settings import Settings
    from pycni.setup.translation.proposal import Translation

Row = dict[str, Any]

IN_USE = ("node_name", "uplink", "vtep", "mtu", "encap", "port", "cluster_cidrs")
"""Settings that the node's record tells, too."""


@click.group()
@output_option
def config() -> None:
    """The settings of this node."""


@config.command()
@output_option
@pass_invocation
def show(invocation: Invocation) -> None:
    """Each setting, its value, and where that comes from.

    IN USE is what the node was set up with, as far as its record tells. Where a setting leaves the
    choice to pycni (-, 0, auto), it is what was chosen. If a setting says something else, `pycni
    setup` has not run since.
    """
    from pycni.settings import lines

    settings = invocation.settings()
    file = invocation.path or SETTINGS_PATH
    written: dict[str, int] = {}
    for dotted, line in lines(invocation.path).items():
        written.setdefault(dotted.partition(".")[0], line)
    used = _in_use(settings)
    rows = []
    for key in type(settings).model_fields:
        value, origin = getattr(settings, key), "default"
        if key in written:
            origin = f"{file}, line {written[key]}"
        if key == "store" and not value:
            value = settings.store_url
        if key == "masquerade_mark" and not invocation.as_json:
            value = f"{value:#x}"
        if key == "bgp" and value is not None and not invocation.as_json:
            value = f"AS {value.asn}, speakers: {len(value.peers)}" + ", mesh" * value.mesh
        if value in ("", ()) and not invocation.as_json:
            value = None
        if key in invocation.log_options:
            value, origin = invocation.log_options[key]
        rows.append({"key": key, "value": _plain(value), "from": origin, "in_use": used.get(key)})
    columns = ["key", "value", "from"]
    invocation.emit(rows, columns=columns + ["in_use"] * bool(used))


@config.command()
@click.option(
    "--settings",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The settings file. Default: that of the node.",
)
@click.option(
    "--conflist",
    "listed",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A network list to check with these settings.",
)
@output_option
@pass_invocation
def check(invocation: Invocation, /, *, file: Path | None, listed: Path | None) -> None:
    """Whether the settings, and a network list, are right. Needs no node and no root.

    Without a settings file the defaults are checked.
    """
    from pycni.errors import InvalidSettings
    from pycni.settings import lines as lines_of
    from pycni.settings import load
    from pycni.setup import config_check
    from pycni.stores import check_url

    named = file or invocation.path
    try:
        settings = load(named)
        check_url(settings.store_url)
    except InvalidSettings as error:
        problems = list(error.problems) or [f"{error.message}; {error.hint}"]
        found = [_row(named or SETTINGS_PATH, problems)]
    else:
        wrong = config_check.settings_problems(settings, lines_of(named))
        found = [_row(named or SETTINGS_PATH, wrong)]
        if listed is not None:
            found.append(_row(listed, config_check.problems(listed, settings)))
    if named is None and not SETTINGS_PATH.exists() and not invocation.as_json:
        found[0]["file"] += " (not there: the defaults)"
    lines = [row | {"problems": one} for row in found for one in row["problems"] or [""]]
    invocation.emit(found if invocation.as_json else lines, columns=("file", "ok", "problems"))
    if not all(row["ok"] for row in found):
        click.get_current_context().exit(failure.FAILED)


@config.command()
@click.option(
    "--cluster-cidr",
    "cluster",
    multiple=True,
    metavar="CIDR",
    help="The network of all pods, where the file knows this node's part alone; once for each "
    "family.",
)
@click.argument("file", type=click.Path(path_type=Path))
@output_option
@pass_invocation
def translate(invocation: Invocation, /, *, file: Path, cluster: tuple[str, ...]) -> None:
    """What the configuration of another network plugin is in pycni.

    FILE is a network list, or a single plugin's configuration, of simple-k8s-cni, minicni,
    bash-cni, bridge, ptp, macvlan, ipvlan or flannel; or flannel's net-conf.json. Each key becomes
    a setting or a key of pycni's list, is not needed, or is refused with what fits instead. Without
    a refusal, settings and network list follow. Nothing is written. Needs no node and no root.
    """
    from pycni.errors import InvalidConfig
    from pycni.setup.translation import source
    from pycni.setup.translation.proposal import TO_DO, translate

    done = translate(source.read(file), file, cluster=cluster)
    invocation.say(
        *_told(done),
        file=str(file),
        ok=not done.refused,
        keys=[
            {"key": one.key, "value": one.value, "fate": one.fate, "says": one.says}
            for one in done.findings
        ],
        settings=done.settings,
        list=done.network,
        to_do=[] if done.refused else TO_DO,
    )
    if done.refused and invocation.as_json:
        click.get_current_context().exit(failure.FAILED)
    if done.refused:
        raise InvalidConfig(
            f"{file} cannot be translated as it is",
            details=f"found {len(done.refused)} of {len(done.findings)} keys refused: "
            + shorten(", ".join(one.key for one in done.refused)),
            hint="do what is said at each of them, and translate the file again",
        )


def _told(done: Translation) -> Iterator[str]:
    """A translation for people."""
    from pycni.setup.conflist import CONFLIST
    from pycni.setup.translation.proposal import TO_DO

    for one in done.findings:
        value = "" if one.value is None else f" = {shorten(to_json(one.value, indent=None))}"
        yield one.key + value
        yield f"    {one.fate}{' ' if one.fate == 'becomes' else ': '}{one.says}"
    if done.refused:
        return
    yield ""
    yield f"# {SETTINGS_PATH}"
    yield from done.settings.splitlines() or ["# nothing from this file"]
    yield ""
    if done.network is None:
        yield "# the network list: as pycni install writes it"
    else:
        yield f"# /etc/cni/net.d/{CONFLIST}"
        yield from to_json(done.network).splitlines()
    yield ""
    for number, step in enumerate(TO_DO, 1):
        yield f"{number}. {step}"


def _row(file: Path, problems: list[str]) -> Row:
    return {"file": str(file), "ok": not problems, "problems": problems}


def _in_use(settings: Settings) -> dict[str, Any]:
    """By key: what the node was set up with; empty if it is no node."""
    from pycni.node.record import Node

    node = Node.load_if_any(settings)
    if node is None:
        return {}
    return {key: _plain(vars(node).get("name" if key == "node_name" else key)) for key in IN_USE}


def _plain(value: Any) -> Any:
    """A value as JSON and a table can show it."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value if isinstance(value, (int, str, bool)) or value is None else str(value)
