"""Rate limits of a pod: a token bucket at each end of its link; the capability `bandwidth`.

Ingress is towards the pod. Its limit is the root qdisc of the host end, so packets to the pod must
go through that qdisc (maps.Endpoint.shaped). Egress is limited by the root qdisc of the pod's end,
where the sender feels it at once; a pod with CAP_NET_ADMIN in its network namespace can remove that
limit. Both end with the link. Runs in the node's network namespace.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pycni.cni import document
from pycni.errors import DataplaneError, InvalidConfig
from pycni.kernel import namespaces
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.qdiscs import TC_H_ROOT, Qdisc
from pycni.kernel.rtnl import Rtnl

CAPABILITY = "bandwidth"
KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")

RATE_MIN = 1000
"""Bits per second; Kubernetes has the same minimum (ValidatePodBandwidthAnnotations)."""
BYTES_LIMIT = 2**32
"""Bursts and rates are 32-bit numbers of bytes (struct tc_tbf_qopt, linux/pkt_sched.h)."""
NO_BURST = 2**32 - 1
"""Bits. containerd sends this burst if the pod asked for none; CRI-O sends 8 times as much."""

USUAL_BURST = 0.01
"""Seconds of the rate, if the pod asked for no burst: long for a timer, short for a user."""
LONGEST_BURST = 270
"""Seconds of the rate: the kernel counts the bucket in 2**32 ticks of 64 ns (PSCHED_SHIFT)."""
QUEUE = 0.05
"""Seconds of the rate that may wait in the queue."""
QUEUE_MIN = 65536
"""Bytes that may wait at any rate: one packet before segmentation."""
ETHERNET_HEADER = 14


@dataclass(frozen=True)
class Rate:
    """The limit of one direction. It counts Ethernet frames, as the kernel's queues do."""

    bits_per_second: int
    burst: int
    """Bits that may pass at once after a pause."""

    def __str__(self) -> str:
        return f"{self.bits_per_second} bit/s"

    def bucket(self, mtu: int) -> dict[str, int]:
        """Parameters of tc-tbf(8) in bytes, or bytes per second. A frame of `mtu` fits into it."""
        rate = self.bits_per_second // 8
        burst = self.burst // 8 if self.burst < NO_BURST else int(rate * USUAL_BURST)
        burst = min(max(burst, 2 * (mtu + ETHERNET_HEADER)), rate * LONGEST_BURST)
        return {"rate": rate, "burst": burst, "limit": burst + max(QUEUE_MIN, int(rate * QUEUE))}


@dataclass(frozen=True)
class Limits:
    """What a pod may receive (ingress) and send (egress); None is no limit."""

    ingress: Rate | None = None
    egress: Rate | None = None

    @property
    def shaped(self) -> bool:
        """Whether packets to the pod must pass the qdisc of its host end: maps.Endpoint.shaped."""
        return self.ingress is not None


def parse(runtime_config: Mapping[str, Any]) -> Limits:
    """The capability's value in `runtimeConfig`, with keys in any case. Raises InvalidConfig.

    Rates are bits per second, bursts are bits; 0 counts as absent. Source: CNI CONVENTIONS.md,
    "dynamic plugin specific fields".
    """
    value = document.pick(runtime_config, (CAPABILITY,)).get(CAPABILITY, {})
    if not isinstance(value, dict):
        raise _invalid("is no object", value)
    found = {key: _number(key, number) for key, number in document.pick(value, KEYS).items()}
    return Limits(_rate("ingress", found), _rate("egress", found))


def setup(ipr: Rtnl, netns_fd: int, *, ifindex: int, ifname: str, mtu: int, limits: Limits) -> None:
    """Limit a new link: `ifindex` is its host end, `ifname` its end in the pod's namespace.

    There is no teardown: the limits end with the link. Raises DataplaneError.
    """
    if limits.ingress is not None:
        _add(ipr, ifindex, limits.ingress, mtu)
    if limits.egress is not None:
        with namespaces.open_rtnl(netns_fd) as pod:
            _add(pod, pod.ifindex(ifname), limits.egress, mtu)


def problems(ipr: Rtnl, netns_fd: int, *, ifindex: int, ifname: str, limits: Limits) -> list[str]:
    """Which of the limits are not in force, a sentence each; changes nothing."""
    found = []
    if limits.ingress is not None and not _is_limited(ipr, ifindex, limits.ingress):
        found.append(f"what {ifname} receives is not limited to {limits.ingress}")
    if limits.egress is not None:
        with namespaces.open_rtnl(netns_fd) as pod:
            inside = pod.link(ifname)
            if inside is None or not _is_limited(pod, inside.ifindex, limits.egress):
                found.append(f"what {ifname} sends is not limited to {limits.egress}")
    return found


def _is_limited(ipr: Rtnl, ifindex: int, rate: Rate) -> bool:
    """Whether the root of a link is a token bucket of that rate, in whole bytes."""
    wanted = Qdisc(ifindex, TC_H_ROOT, "tbf", rate.bits_per_second // 8)
    return wanted in ipr.qdiscs(ifindex)


def _add(ipr: Rtnl, ifindex: int, rate: Rate, mtu: int) -> None:
    try:
        ipr.add_tbf(ifindex, **rate.bucket(mtu))
    except NetlinkError as error:
        raise DataplaneError(
            f"cannot limit interface {ifindex} to {rate}: {error.strerror}",
            hint="the kernel needs NET_SCH_TBF" if error.errno == errno.ENOENT else "",
        ) from error


def _rate(direction: str, found: Mapping[str, int]) -> Rate | None:
    rate, burst = found.get(f"{direction}Rate", 0), found.get(f"{direction}Burst", 0)
    if not rate and not burst:
        return None
    if not rate or not burst:
        raise _invalid(f"has {direction}Rate without {direction}Burst, or the reverse", dict(found))
    if rate < RATE_MIN:
        raise _invalid(f"has an {direction}Rate below {RATE_MIN} bit/s", rate)
    if burst // 8 >= BYTES_LIMIT:
        raise _invalid(f"has an {direction}Burst of {BYTES_LIMIT} bytes or more", burst)
    if rate // 8 >= BYTES_LIMIT:  # over 34 Gbit/s: a token bucket cannot count that
        return None
    return Rate(rate, burst)


def _number(key: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _invalid(f"has an {key} that is no whole number from 0", value)
    return value


def _invalid(problem: str, found: Any) -> InvalidConfig:
    return InvalidConfig(
        f"{CAPABILITY} {problem}",
        details=f"found {found!r}",
        hint="correct the pod's bandwidth annotations, or the runtime's",
    )
