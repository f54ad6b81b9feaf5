# SPDX-License-Identifier: Apache-2.0
"""The file of another plugin, read and decoded. What is wrong with it as a whole is an error."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from pycni.errors import DecodingError, FileError, InvalidConfig
from pycni.files import read_regular
from pycni.setup.conflist import PLUGIN
from pycni.setup.translation import net_conf
from pycni.setup.translation.finding import kind
from pycni.setup.translation.plugins import PLUGINS

SIZE_MAX = 64 << 10
"""Bytes; a network list has a few hundred."""

NAME_A_LIST = "name a file of /etc/cni/net.d, or flannel's net-conf.json"
KNOWN = tuple(PLUGINS)

Document = dict[str, Any]


def read(path: Path) -> bytes:
    """The bytes of a file, or of a pipe of the shell's, such as /dev/stdin. Raises FileError."""
    try:
        return read_regular(path, at_most=SIZE_MAX, pipes=True)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", hint=NAME_A_LIST) from error


def decode(content: bytes, path: Path) -> Document:
    """The object in a file. Raises DecodingError: also for a key that an object has twice, of which
    readers take different ones."""
    try:
        text = content.decode()
        document = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
    except RecursionError:
        raise DecodingError(f"{path} is nested too deeply", hint=NAME_A_LIST) from None
    except UnicodeDecodeError:
        raise DecodingError(f"{path} is not UTF-8", hint="save it as UTF-8 text") from None
    except ValueError as error:
        hint = "correct it: JSON has no comments, and no placeholders without quotes"
        raise DecodingError(f"{path} is no JSON", details=str(error), hint=hint) from None
    if not isinstance(document, dict):
        raise DecodingError(
            f"{path} is no network configuration: it is {kind(document)}, not an object",
            hint=NAME_A_LIST,
        )
    return document


def plugins(document: Document, path: Path) -> list[Document]:
    """The plugins of a list, or the one that a file is. Raises InvalidConfig."""
    if "plugins" not in document:
        found: Any = [document]
    else:
        found = document["plugins"]
        if not isinstance(found, list) or not found:
            raise InvalidConfig(
                f"{path}: plugins must be a list of one plugin or more, not {_shown(found)}",
                hint=NAME_A_LIST,
            )
    for number, one in enumerate(found):
        if not isinstance(one, dict) or not isinstance(_type(one), str):
            what = f"plugins[{number}]" if "plugins" in document else "it"
            raise InvalidConfig(
                f"{path} is no network configuration: {what} has no `type`, the plugin's name",
                details=f"found {kind(one)}" if not isinstance(one, dict) else "",
                hint=NAME_A_LIST,
            )
    _check_types([_type(one) for one in found], path)
    return list(found)


def is_net_conf(document: Document) -> bool:
    """Whether it is flannel's daemon's."""
    return "plugins" not in document and _type(document) is None and net_conf.is_net_conf(document)


def _check_types(types: list[str], path: Path) -> None:
    if PLUGIN in types:
        raise InvalidConfig(
            f"{path} is a list of pycni already",
            hint=f"check it: pycni config check --conflist {path}",
        )
    twice = [name for name, count in Counter(types).items() if count > 1]
    if twice:
        raise InvalidConfig(
            f"{path} has the plugin {twice[0]} twice", hint="remove one in a copy of the file"
        )
    if types[0] not in KNOWN:
        raise InvalidConfig(
            f"{path}: nothing is known here of the plugin {types[0]!r}",
            details=f"known are {', '.join(KNOWN)}",
            hint="if it is a copy of one of them, write that one's type in a copy of the file: "
            "testcni for simple-k8s-cni, bash-cni for a script that reads `podcidr`",
        )
    second = [name for name in types[1:] if name in KNOWN]
    if second:
        raise InvalidConfig(
            f"{path}: the plugins {types[0]} and {second[0]} both make an interface",
            hint="translate them one by one: each in a file of its own",
        )


def _type(plugin: Document) -> Any:
    """Go reads keys without regard to case."""
    return next((one for name, one in plugin.items() if name.lower() == "type"), None)


def _shown(value: Any) -> str:
    return "an empty list" if value == [] else kind(value)


def _object(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {name!r} twice")
    return found


def _finite(number: str) -> float:
    if math.isinf(found := float(number)):
        raise ValueError(f"the number {number} is too large")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed")
