# SPDX-License-Identifier: Apache-2.0
"""One key of another plugin's configuration, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from pycni.setup.translation import toml

Fate = Literal["becomes", "not needed", "refused"]
BECOMES: Fate = "becomes"
NEEDLESS: Fate = "not needed"
REFUSED: Fate = "refused"


class Unfit(ValueError):
    """A value that cannot be translated; the text says why, and what to do."""


@dataclass(frozen=True)
class Finding:
    """What becomes of a key."""

    key: str
    """Its path in the file, such as `plugins[0].ipam.rangeStart`."""
    value: Any
    """As decoded; None if the file has no such key."""
    fate: Fate
    note: str
    """A sentence without a full stop; empty where `settings` and `network` say all."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What goes into the node's settings."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """What goes into the network list: keys of the list, or of pycni's plugin in it."""
    follower: Mapping[str, Any] | None = None
    """A plugin that stays, after pycni."""

    @property
    def says(self) -> str:
        """What the key becomes, or why it does not."""
        parts = [f"{key} = {toml.value(one)}" for key, one in self.settings.items()]
        parts += [f'"{key}": {json.dumps(one)} in the list' for key, one in self.network.items()]
        return "; ".join([*parts, self.note] if self.note else parts)


@dataclass(frozen=True)
class Key:
    """A key as the file has it."""

    path: str
    value: Any = None
    conf: Conf = field(default_factory=lambda: Conf("", {}))
    """The object that it is in."""

    def becomes(
        self,
        note: str = "",
        *,
        settings: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
    ) -> Finding:
        """It goes on under another name, or its own."""
        return Finding(self.path, self.value, BECOMES, note, settings or {}, network or {})

    def needless(self, why: str) -> Finding:
        """pycni does it anyway, or has nothing that it could apply to."""
        return Finding(self.path, self.value, NEEDLESS, why)

    def refused(self, why: str) -> Finding:
        """It has no equal in pycni; `why` says what fits instead."""
        return Finding(self.path, self.value, REFUSED, why)


@dataclass(frozen=True)
class Conf:
    """An object of the file. As Go reads it, case of keys does not matter, and null is absent."""

    path: str
    """Before its keys: empty, or with a dot at the end."""
    keys: Mapping[str, Key]
    """By name in lower case."""
    outer: Conf | None = None
    cluster: tuple[str, ...] = ()
    """The cluster's networks, where they were told beside the file."""

    @staticmethod
    def of(value: Any, path: str, **more: Any) -> Conf:
        """Raises Unfit if `value` is no object, or has a key twice."""
        if not isinstance(value, dict):
            raise Unfit(f"must be an object in braces, not {kind(value)}")
        keys: dict[str, Key] = {}
        for name, one in value.items():
            if name.lower() in keys:
                raise Unfit(f"has the key {name} twice, in other capitals: remove one")
            keys[name.lower()] = Key(path + name, one)
        keys = {name: one for name, one in keys.items() if one.value is not None}
        return Conf(path, keys, **more)

    def get(self, name: str) -> Any:
        """The value of a key; None if it is absent."""
        return found.value if (found := self.keys.get(name.lower())) else None


ALL = Key("all keys together")
"""In the place of a key, where it takes several to be wrong."""

Rule = Callable[[Key], Iterable[Finding]]
Rules = Mapping[str, Rule]
"""By name of the key in lower case."""


def walk(conf: Conf, rules: Rules) -> Iterator[Finding]:
    """What becomes of each key of an object. One without a rule is refused by its name."""
    for name, key in conf.keys.items():
        rule = rules.get(name)
        if rule is None:
            yield key.refused(_unknown(name, rules))
            continue
        try:
            yield from rule(replace(key, conf=conf))
        except Unfit as error:
            yield key.refused(str(error))


def needless(why: str) -> Rule:
    """The rule of a key that is not needed, whatever its value is."""
    return lambda key: [key.needless(why)]


def refused(why: str) -> Rule:
    """The rule of a key that pycni has no equal for, whatever its value is."""
    return lambda key: [key.refused(why)]


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "null")


def _unknown(name: str, rules: Rules) -> str:
    close = get_close_matches(name, rules, n=1, cutoff=0.75)
    guess = f"did you mean {close[0]} (capitals do not matter)? " if close else ""
    return f"unknown key: {guess}remove it if nothing reads it"
