# SPDX-License-Identifier: Apache-2.0
"""The addresses of Services that a node is to announce: a file in the run directory.

One loop of the agent follows Services and writes it, another writes BIRD's configuration by it, and
`pycni status` compares. So a new agent announces what the last one did until Services are listed
again, and after a reboot nothing before.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import FileError
from pycni.files import read_regular, remove_file, replace_file
from pycni.settings import Settings


class Told(BaseModel):
    """What is announced of Services, and what is not."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    addresses: tuple[IPAddress, ...] = ()
    unforwarded: tuple[int, ...] = ()
    """The IP versions (4, 6) of those that are not announced, since nobody forwards here what comes
    to them."""


NOTHING = Told()


def path(settings: Settings) -> Path:
    """The file."""
    return settings.run_dir / "bgp-services.json"


def load(settings: Settings) -> Told | None:
    """What was told last; None where nothing was yet. Never an address outside of the settings'
    networks. Raises FileError."""
    bgp, file = settings.bgp, path(settings)
    if bgp is None or not bgp.of_services:
        return NOTHING
    try:
        told = Told.model_validate_json(read_regular(file))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise FileError(
            f"the file {file} cannot be read: {error}",
            hint="remove it: the agent writes it again, out of the Services",
        ) from error
    named = tuple(one for one in told.addresses if _is_in(one, bgp.service_networks))
    return told.model_copy(update={"addresses": named})


def save(settings: Settings, told: Told) -> bool:
    """Keep it; whether it is something else than before. Raises FileError."""
    try:
        if load(settings) == told:
            return False
    except FileError:
        pass
    content = json.dumps(told.model_dump(mode="json")).encode()
    replace_file(path(settings), content, durable=False)
    return True


def forget(settings: Settings) -> None:
    """Remove the file; no error if there is none. Raises FileError."""
    remove_file(path(settings))


def _is_in(one: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(one in network for network in networks)
