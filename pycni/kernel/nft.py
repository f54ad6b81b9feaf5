# SPDX-License-Identifier: Apache-2.0
"""nftables: the one door to libnftables (libnftables(3)), loaded by ctypes.

Commands are an nft(8) script or libnftables-json(5) objects, answers are JSON. Each call is one
transaction in the network namespace of the calling thread. This module does not know what the
tables are for.

One thread at a time calls libnftables: it asks for the names of protocols with getprotobynumber(3),
whose answer all threads share, and has more such state. An older libnftables is not called where it
would crash (nft_sets.py): it runs in our process.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel import memory, nft_elements, nft_outline, nft_sets, nft_tables, xt_matches
from pycni.kernel.nft_elements import Answer, Elements
from pycni.kernel.nft_sets import NamedSet
from pycni.kernel.nft_tables import Table

NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_TERSE = 1 << 4, 1 << 11
FAMILY = "inet"
_one_at_a_time = threading.Lock()
KERNEL_HINT = "the kernel needs nf_tables with nat and masquerade (nft_chain_nat, nft_masq)"
READ_FROM = ".".join(map(str, nft_sets.READ_FROM))
NEWER_HINT = f"install libnftables1 {READ_FROM} or newer; Debian 13 and pycni's image have one"


def run(
    commands: str | Sequence[dict[str, Any]], *, what: str, elements: bool = True
) -> list[dict[str, Any]]:
    """Run commands in one transaction: all take effect, or none. Returns what they list; without
    `elements`, those of named sets and maps are not read.

    `what` says in the message of a SetupError what the commands are about.
    """
    if found := _unreadable(commands):
        more = f" and {len(found) - 1} more" if found[1:] else ""
        raise SetupError(
            f"libnftables {release()} is not called for {what}: it would crash at {found[0]}{more}"
            ", which a newer one wrote",
            hint=NEWER_HINT,
        )
    text = commands if isinstance(commands, str) else json.dumps({"nftables": list(commands)})
    with _one_at_a_time:
        output = _run(text.encode(), what, 0 if elements else NFT_CTX_OUTPUT_TERSE)
    if max(len(text), len(output)) > memory.LARGE:
        memory.give_back()  # some 500 bytes for each element
    return list(json.loads(output)["nftables"]) if output else []


def _run(commands: bytes, what: str, flags: int) -> bytes:
    nft = _library(what)
    context = ctypes.c_void_p(nft.nft_ctx_new(0))
    try:
        nft.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON | flags)
        nft.nft_ctx_buffer_output(context)
        nft.nft_ctx_buffer_error(context)
        if nft.nft_run_cmd_from_buffer(context, commands) != 0:
            problem = nft.nft_ctx_get_error_buffer(context).decode(errors="replace").strip()
            raise SetupError(
                f"nftables refused {what}",
                details=problem.splitlines()[0] if problem else "",
                hint=KERNEL_HINT,
            )
        output: bytes = nft.nft_ctx_get_output_buffer(context)
        return output
    finally:
        nft.nft_ctx_free(context)


@cache
def release() -> str:
    """Of libnftables, by its own word: every listing has it. This one reads no sets. Raises
    SetupError."""
    question = json.dumps({"nftables": [{"list": {"flowtables": None}}]})
    with _one_at_a_time:
        output = _run(question.encode(), "the release of libnftables", 0)
    return str(json.loads(output)["nftables"][0]["metainfo"]["version"])


def is_old() -> bool:
    """Whether libnftables is older than READ_FROM: then there are sets at which it would end the
    process, and it reads the elements of all sets of a table where it lists one chain. Raises
    SetupError."""
    return tuple(map(int, re.findall(r"\d+", release())[:3])) < nft_sets.READ_FROM


def unreadable(table: Table | None = None) -> list[NamedSet]:
    """The sets of a table, or of all, at which this libnftables would end the process. None where
    it cannot be known: libnftables then says why."""
    try:
        return nft_sets.demanding(table) if is_old() else []
    except (SetupError, OSError):
        return []


def _unreadable(commands: str | Sequence[dict[str, Any]]) -> list[NamedSet]:
    """Those among the sets that libnftables reads for these commands: all, unless it is a listing
    of all chains, of one table, or of one thing in a table."""
    match commands:
        case [{"list": {"chains": None}}]:
            return []
        case [{"list": {"table": {"family": family, "name": table}}}]:
            return unreadable((family, table))
        case (
            [{"list": {"chain": {"family": family, "table": table}}}]
            | [{"list": {"set": {"family": family, "table": table}}}]
            | [{"list": {"map": {"family": family, "table": table}}}]
        ):
            return unreadable((family, table))
    return unreadable()


def look_up(family: str, table: str, name: str, element: str | int, *, what: str) -> Answer:
    """As nft_elements.look_up. Raises SetupError."""
    try:
        return nft_elements.look_up(family, table, name, element)
    except OSError as error:
        raise _silent(what, error) from error


def outline(table: str, *, what: str) -> list[dict[str, Any]]:
    """As nft_outline.read, of a table of our family. Raises SetupError."""
    try:
        return nft_outline.read(FAMILY, table)
    except OSError as error:
        raise _silent(what, error) from error


def addresses(table: str, name: str, *, what: str) -> Elements | None:
    """As nft_elements.addresses, of a table of our family. Raises SetupError."""
    try:
        return nft_elements.addresses(FAMILY, table, name)
    except OSError as error:
        raise _silent(what, error) from error


def count_among(table: str, name: str, wanted: Collection[IPAddress], *, what: str) -> int | None:
    """As nft_elements.count_among, of a table of our family. Raises SetupError."""
    try:
        return nft_elements.count_among(FAMILY, table, name, wanted)
    except OSError as error:
        raise _silent(what, error) from error


def are_many(family: str, table: str, *, what: str) -> bool:
    """As nft_elements.are_many. Raises SetupError."""
    try:
        return nft_elements.are_many(family, table)
    except OSError as error:
        raise _silent(what, error) from error


def table_exists(name: str, *, what: str) -> bool:
    """Whether there is a table of this name in our family. Raises SetupError."""
    return table_flags(name, what=what) is not None


def table_flags(name: str, *, what: str, family: str = FAMILY) -> int | None:
    """The flags of a table; None if there is none of this name. One with flags must not be listed
    (nft_tables.py). Raises SetupError."""
    return flags(what=what).get((family, name))


def flags(*, what: str) -> dict[Table, int]:
    """As nft_tables.flags. Raises SetupError."""
    try:
        return nft_tables.flags()
    except OSError as error:
        raise _silent(what, error) from error


def has_chain(family: str, table: str, name: str, *, what: str) -> bool:
    """As nft_tables.has_chain. Raises SetupError."""
    try:
        return nft_tables.has_chain(family, table, name)
    except OSError as error:
        raise _silent(what, error) from error


def devices(*, what: str) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """As nft_tables.devices. Raises SetupError."""
    try:
        return nft_tables.devices()
    except OSError as error:
        raise _silent(what, error) from error


def matches(
    family: str, table: str, chain: str, *, what: str
) -> dict[int, list[dict[str, Any] | None]]:
    """As xt_matches.read. Raises SetupError."""
    try:
        return xt_matches.read(family, table, chain)
    except OSError as error:
        raise _silent(what, error) from error


def demanding_sets(table: str, *, what: str) -> frozenset[str]:
    """Names of a table's sets that some releases of libnftables cannot read, such as an
    administrator's, whatever this one can (nft_sets.py). Raises SetupError."""
    try:
        return frozenset(one.name for one in nft_sets.demanding((FAMILY, table)))
    except OSError as error:
        raise _silent(what, error) from error


def _silent(what: str, error: OSError) -> SetupError:
    return SetupError(f"nftables does not tell of {what}: {error.strerror}", hint=KERNEL_HINT)


def delete_table(name: str, *, what: str) -> None:
    """Delete a table; no error if it is gone."""
    table = {"table": {"family": FAMILY, "name": name}}
    run([{"add": table}, {"delete": table}], what=what)


def _library(what: str) -> ctypes.CDLL:
    try:
        nft = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise SetupError(
            f"{what} needs libnftables.so.1", hint="apt install libnftables1"
        ) from error
    nft.nft_ctx_new.restype = ctypes.c_void_p
    nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    nft.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    nft.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return nft
