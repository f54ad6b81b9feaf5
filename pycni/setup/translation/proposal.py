# SPDX-License-Identifier: Apache-2.0
"""What all keys together become: the text of a settings file, and a network list.

It is only there if no key is refused, and has passed what `pycni config check` asks. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycni.errors import InvalidSettings
from pycni.names import SETTINGS_PATH
from pycni.settings import Settings, parse
from pycni.setup import config_check, conflist
from pycni.setup.translation import followers, net_conf, plugins, source, subnets, toml
from pycni.setup.translation.finding import ALL, REFUSED, Conf, Finding, Key, Unfit, walk

OF_LIST = ("cniVersion", "name", "disableGC", "disableCheck")
"""Keys that a list has, and not a plugin in it."""

ANY_NODE = 'node_name = "node"\n'
"""The settings are for every node: the name of this host is none of theirs."""

TO_DO = (
    f"put the settings into {SETTINGS_PATH} on every node, with the `store` by which nodes find "
    "each other: 'kube:' in Kubernetes, else 'etcd://HOST:2379'",
    "drain a node, stop the old plugin and its daemon, take its list and devices away, then run "
    "pycni setup and pycni install --only plugin",
    f"put the list into /etc/cni/net.d/{conflist.CONFLIST}, and make the pods anew: those that are "
    "there stay in the old network, which the new one does not reach",
)


@dataclass(frozen=True)
class Translation:
    """What became of a file."""

    findings: tuple[Finding, ...]
    settings: str
    """A settings file in TOML; empty if a key is refused, or if the defaults are right."""
    network: Mapping[str, Any] | None
    """A network list; None if a key is refused, or if the file says nothing about it."""

    @property
    def refused(self) -> list[Finding]:
        return [one for one in self.findings if one.fate == REFUSED]


def translate(content: bytes, path: Path, *, cluster: Iterable[str] = ()) -> Translation:
    """What the file at `path` with that content becomes. `cluster`: the pods' networks, where the
    file knows the node's part alone. Raises DecodingError or InvalidConfig for a file that is no
    configuration, or of a plugin that is not known."""
    document = source.decode(content, path)
    told = tuple(cluster)
    daemon = source.is_net_conf(document)
    found = [*_told(told)]
    try:
        found += (
            net_conf.judge(Conf.of(document, ""))
            if daemon
            else _list(document, source.plugins(document, path), told)
        )
    except Unfit as error:
        found.append(Key("the file").refused(str(error)))
    if any(one.fate == REFUSED for one in found):
        return Translation(tuple(found), "", None)
    settings, wrong = _settings(found)
    listed, unlike = (None, []) if daemon else _network(found)
    if not wrong:
        wrong = _problems(settings, listed)
    if wrong or unlike:
        found += [ALL.refused(one) for one in (*wrong, *unlike)]
        return Translation(tuple(found), "", None)
    return Translation(tuple(found), settings, listed)


def _told(cluster: tuple[str, ...]) -> Iterator[Finding]:
    for one in cluster:
        key = Key("--cluster-cidr", one)
        yield from walk(Conf("", {"network": key}), {"network": subnets.cluster})


def _list(
    document: Mapping[str, Any], listed: list[dict[str, Any]], told: tuple[str, ...]
) -> Iterator[Finding]:
    """The keys of a list and its plugins, or of a single plugin."""
    alone = "plugins" not in document
    if not alone:
        head = {name: one for name, one in document.items() if name != "plugins"}
        yield from walk(Conf.of(head, ""), plugins.HEAD)
    for number, one in enumerate(listed):
        path = "" if alone else f"plugins[{number}]"
        conf = Conf.of(one, "" if alone else f"{path}.", cluster=told)
        if number == 0:
            yield from plugins.judge(conf, head=alone)
        else:
            yield from followers.judge(conf, Key(path, one), conf.get("type"))


def _settings(found: Iterable[Finding]) -> tuple[str, list[str]]:
    """The settings file, and what contradicts itself in it."""
    merged, unlike = _merge(one.settings for one in found)
    order = list(Settings.model_fields)
    return toml.document({key: merged[key] for key in sorted(merged, key=order.index)}), unlike


def _network(found: list[Finding]) -> tuple[dict[str, Any], list[str]]:
    """The network list, as `pycni install` would write it but for what was found."""
    merged, unlike = _merge(one.network for one in found)
    document: dict[str, Any] = json.loads(conflist.render(conflist.UNSPECIFIED))
    del document[conflist.CONFLIST_MARKER]  # it is the operator's
    own = document["plugins"][0]
    for key, one in merged.items():
        (document if key in OF_LIST else own)[key] = one
    document["plugins"] += [one.follower for one in found if one.follower is not None]
    document["plugins"] = document.pop("plugins")  # the last key, as it was
    return document, unlike


def _merge(parts: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """All parts as one: lists are joined, tables merged; and what differs where it cannot."""
    merged: dict[str, Any] = {}
    unlike = []
    for part in parts:
        for key, one in part.items():
            before = merged.get(key)
            if isinstance(one, list) and before is not None:
                merged[key] = before + [new for new in one if new not in before]
            elif isinstance(one, dict) and before is not None:
                merged[key], inner = _merge([before, one])
                unlike += [f"{key}.{text}" for text in inner]
            elif before is not None and before != one:
                unlike.append(f"{key} would be {before} and {one}: correct one of the two")
            else:
                merged[key] = one
    return merged, unlike


def _problems(text: str, listed: dict[str, Any] | None) -> list[str]:
    """What `pycni config check` would say of both."""
    try:
        settings = parse(ANY_NODE + text, Path("the settings"))
    except InvalidSettings as error:
        return list(error.problems) or [f"{error.message}; {error.hint}"]
    return [] if listed is None else config_check.problems_of(listed, settings)
