# SPDX-License-Identifier: Apache-2.0
"""Echo requests from pods, each sent one time and counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from pycni.lab import processes
from pycni.lab.cluster import Lab, peer_command
from pycni.lab.layout import POD_IFNAME, Pod
from support.kernel import open_iproute
from support.waiting import wait_until


class Flood:
    """Echo requests from a pod, in each family at once, each sent one time and counted.

    One per `interval`, in seconds, `count` of them and more: until `lost` is asked for, or 65,536
    are sent.
    """

    def __init__(
        self, source: Pod, addresses: Sequence[str], *, count: int, interval: float = 0.001
    ) -> None:
        self._source = source
        self._count = count
        self._interval = interval
        self._addresses = addresses
        self._senders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Flood:
        sent = self._sent()
        for address in self._addresses:
            command = peer_command(
                "echo", address, "--count", str(self._count), "--until-eof",
                "--interval", str(self._interval),
            )  # fmt: skip
            self._senders.append(
                subprocess.Popen(
                    processes.inside(self._source.netns, command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        wait_until(lambda: self._sent() - sent > 100, "the flood flows")
        return self

    def __exit__(self, *exc: object) -> None:
        for sender in self._senders:
            sender.kill()
            sender.communicate()

    @property
    def flowing(self) -> bool:
        """Whether requests are still being sent in every family."""
        return all(sender.poll() is None for sender in self._senders)

    def lost(self) -> dict[str, int]:
        """Ends it, once `count` are sent; unanswered requests by address."""
        found = {}
        for sender in self._senders:
            (answer,) = json.loads(sender.communicate(timeout=60)[0])
            assert answer["sent"] >= self._count
            found[answer["address"]] = answer["sent"] - answer["received"]
        return found

    def _sent(self) -> int:
        with open_iproute(self._source.netns) as ipr:
            (index,) = ipr.link_lookup(ifname=POD_IFNAME)
            (link,) = ipr.get_links(index)
            return int(link.get("IFLA_STATS64")["tx_packets"])


def unanswered(lab: Lab, netns: str, addresses: Sequence[str], **options: int) -> list[str]:
    """Of the addresses, those that do not answer every echo request."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    answers = lab.peer(netns, "echo", *addresses, *words)
    return [one["address"] for one in answers if one["received"] != one["sent"]]
