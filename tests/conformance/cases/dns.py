# SPDX-License-Identifier: Apache-2.0
"""C16: where the `dns` of a result comes from."""

from __future__ import annotations

from conformance.bench import Bench
from conformance.registry import case

CONFIGURED = {"nameservers": ["192.0.2.53"], "search": ["svc.example"], "options": ["ndots:5"]}
OF_IPAM = {"nameservers": ["192.0.2.99"], "domain": "ipam.example"}


@case("C16", "dns of the configuration is in the result")
def configured(bench: Bench) -> None:
    _, attachment = bench.attached(conf={"dns": CONFIGURED})

    assert attachment.result is not None
    assert _dns(attachment.result) == CONFIGURED, attachment.result.get("dns")


@case("C22", "dns of IPAM is in the result, unless the configuration has some",
      over={"ipam": {}, "both": CONFIGURED})  # fmt: skip
def of_ipam(bench: Bench, conf: dict[str, object]) -> None:
    ipam = bench.fake_ipam()
    attachment = bench.delegated(ipam, conf={"dns": conf, "ipam": {"dns": OF_IPAM}})

    result = attachment.attach()

    assert _dns(result) == (conf or OF_IPAM), result.get("dns")


def _dns(result: dict[str, object]) -> dict[str, object]:
    found = result.get("dns") or {}
    assert isinstance(found, dict)
    return {key: one for key, one in found.items() if one}
