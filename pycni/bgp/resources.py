# SPDX-License-Identifier: Apache-2.0
"""BGPPeer resources: speakers that are named once for many nodes.

What is chosen for this node is in a file of the state directory, with what is not right: so BIRD's
configuration stays as it is while the API server is away, also after a boot. Choosing is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pycni.bgp import passwords
from pycni.bgp_settings import Bgp, BgpPeer
from pycni.errors import FileError, InvalidSettings
from pycni.files import read_regular, replace_file
from pycni.settings import Settings

FIELDS = ("address", "asn", "bfd", "multihop", "communities", "client")
"""Of the resource's spec and of a BgpPeer alike."""
SELECTOR, PASSWORD = "nodeSelector", "passwordKey"
PASSWORDS = Path("/etc/pycni-bgp")
"""Where the Secret `pycni-bgp` is, a file for each key: a resource names none but those."""
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""Of a Secret."""


@dataclass(frozen=True)
class Resource:
    """One of them as it was read."""

    peer: BgpPeer | None
    """None: it is set aside."""
    problem: str = ""
    """Why it is."""
    selector: tuple[tuple[str, str], ...] = ()
    """Labels that a node must have."""


class Chosen(BaseModel):
    """What they are for this node."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peers: dict[str, BgpPeer] = {}
    """By name of the resource."""
    set_aside: dict[str, str] = {}
    """By name of the resource: why."""


NONE = Chosen()


def read(spec: Mapping[str, object]) -> Resource:
    """A resource by its spec, which anybody may have written. Never raises."""
    wanted = spec.get(SELECTOR, {})
    if not isinstance(wanted, dict):
        return Resource(None, f"{SELECTOR}: must be labels and their values")
    selector = tuple(sorted((key, str(value)) for key, value in wanted.items()))
    if unknown := sorted(spec.keys() - {*FIELDS, SELECTOR, PASSWORD}):
        why = f"unknown field {unknown[0]}: a newer version of pycni may know it"
        return Resource(None, why, selector)
    values = {key: spec[key] for key in FIELDS if key in spec}
    if (key := spec.get(PASSWORD)) is not None:
        if not isinstance(key, str) or not KEY.fullmatch(key) or key in (".", ".."):
            return Resource(None, f"{PASSWORD}: must be a key of the Secret pycni-bgp", selector)
        values["password_file"] = str(PASSWORDS / key)
    try:
        return Resource(BgpPeer.model_validate(values), selector=selector)
    except ValidationError as error:
        return Resource(None, _problem(error), selector)


def choose(resources: Mapping[str, Resource], labels: Mapping[str, str], bgp: Bgp) -> Chosen:
    """What they are for a node with these labels and settings. Of two with one address the first
    by name is used; one of the settings goes before both."""
    peers: dict[object, tuple[str, BgpPeer]] = {}
    in_settings = {peer.address for peer in bgp.peers}
    set_aside: dict[str, str] = {}
    for name, one in sorted(resources.items()):
        if not labels.items() >= dict(one.selector).items():
            continue
        if one.peer is None:
            set_aside[name] = one.problem
        elif one.peer.address in in_settings:
            set_aside[name] = f"{one.peer.address} is in bgp.peers of the settings, too"
        elif one.peer.address in peers:
            set_aside[name] = f"the BGPPeer {peers[one.peer.address][0]} has its address, too"
        elif one.peer.client and one.peer.asn != bgp.asn:
            set_aside[name] = f"client: it is of another system than this node ({bgp.asn})"
        else:
            peers[one.peer.address] = (name, one.peer)
    return Chosen(peers=dict(peers.values()), set_aside=set_aside)


def path(settings: Settings) -> Path:
    """The file."""
    return settings.state_dir / "bgp-peers.json"


def load(settings: Settings) -> Chosen:
    """What was chosen last; nothing if nothing ever was, or where the store has no resources.
    Raises FileError."""
    file = path(settings)
    if not settings.has_bgp_resources:
        return NONE
    try:
        return Chosen.model_validate_json(read_regular(file))
    except FileNotFoundError:
        return NONE
    except (OSError, ValidationError) as error:
        raise FileError(
            f"the file {file} cannot be read: {error}",
            hint="remove it: the agent writes it again, out of the BGPPeer resources",
        ) from error


def usable(settings: Settings) -> Chosen:
    """What was chosen last, without those whose password cannot be had. Raises FileError."""
    chosen = load(settings)
    peers, set_aside = dict(chosen.peers), dict(chosen.set_aside)
    for name, peer in chosen.peers.items():
        try:
            passwords.read([peer])
        except InvalidSettings as error:
            del peers[name]
            set_aside[name] = f"{error.message}: is its key in the Secret pycni-bgp?"
    return Chosen(peers=peers, set_aside=set_aside)


def save(settings: Settings, chosen: Chosen) -> bool:
    """Keep what is chosen; whether it is something else than before. Raises FileError."""
    try:
        if load(settings) == chosen and path(settings).exists():
            return False
    except FileError:
        pass
    replace_file(path(settings), json.dumps(chosen.model_dump(mode="json")).encode())
    return True


def _problem(error: ValidationError) -> str:
    """The first of them."""
    (first, *_) = error.errors()
    field = first["loc"][0]
    if first["type"] == "missing":
        return f"{field} is missing"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
