"""ipMasq: one nftables table of our own that hides pods behind the node's address.

Pods are not listed here: `from_container` marks what leaves the cluster, so an ADD or DEL changes
no rule. The table is written in one transaction through libnftables' JSON (libnftables-json(5)),
loaded by ctypes, in the network namespace of the calling thread.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

from pycni.errors import SetupError

TABLE = {"family": "inet", "name": "pycni"}
CHAIN = {"family": "inet", "table": "pycni", "name": "postrouting"}

NFT_CTX_OUTPUT_JSON = 1 << 4
SRCNAT_PRIORITY = 100


def exists() -> bool:
    """Whether the table is there. Raises SetupError."""
    listed = _run([{"list": {"tables": {"family": "inet"}}}])
    tables = (entry.get("table", {}) for entry in listed)
    return any(table.get("name") == TABLE["name"] for table in tables)


def setup(mark: int, *, overlay: str) -> None:
    """Write the table, replacing an older one of ours in the same transaction.

    A marked packet is masqueraded unless it leaves by the overlay device `overlay`: a Service that
    turned out to be a pod keeps its client's address. Raises SetupError.
    """
    marked = {"&": [{"meta": {"key": "mark"}}, mark]}
    rule = [
        {"match": {"op": "==", "left": marked, "right": mark}},
        {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": overlay}},
        {"masquerade": None},
    ]
    chain = CHAIN | {"type": "nat", "hook": "postrouting", "prio": SRCNAT_PRIORITY}
    _run(
        [
            {"add": {"table": TABLE}},
            {"delete": {"table": TABLE}},
            {"add": {"table": TABLE}},
            {"add": {"chain": chain | {"policy": "accept"}}},
            {
                "add": {
                    "rule": {"family": "inet", "table": "pycni", "chain": "postrouting"}
                    | {"expr": rule}
                }
            },
        ]
    )


def teardown() -> None:
    """Delete the table; no error if it is gone."""
    _run([{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}])


def _run(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run commands in one transaction; returns what they list."""
    nft = _library()
    context = ctypes.c_void_p(nft.nft_ctx_new(0))
    try:
        nft.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON)
        nft.nft_ctx_buffer_output(context)
        nft.nft_ctx_buffer_error(context)
        text = json.dumps({"nftables": commands}).encode()
        if nft.nft_run_cmd_from_buffer(context, text) != 0:
            problem = nft.nft_ctx_get_error_buffer(context).decode(errors="replace").strip()
            raise SetupError(
                "nftables refused pycni's table for ipMasq",
                details=problem.splitlines()[0] if problem else "",
                hint="the kernel needs nf_tables with nat and masquerade (nft_chain_nat, nft_masq)",
            )
        output = nft.nft_ctx_get_output_buffer(context)
        return list(json.loads(output)["nftables"]) if output else []
    finally:
        nft.nft_ctx_free(context)


def _library() -> ctypes.CDLL:
    try:
        nft = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise SetupError(
            "ipMasq needs libnftables.so.1", hint="apt install libnftables1"
        ) from error
    nft.nft_ctx_new.restype = ctypes.c_void_p
    nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    nft.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    nft.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return nft
