# SPDX-License-Identifier: Apache-2.0
"""G40 to G47: addresses and MACs that somebody asks for.

CNI conventions: `ips` and `mac` as capabilities, as `args.cni`, and as IP and MAC of CNI_ARGS; the
first of these that is there counts.
"""

from __future__ import annotations

from collections.abc import Callable

from conformance.bench import Bench, Network, addresses_of, bare
from conformance.call import refused
from conformance.registry import case
from conformance.runtime import Attachment

WANTED_MAC = "02:11:22:33:44:55"
OTHER_MAC = "02:11:22:33:44:66"

Ask = Callable[[Attachment, str], None]


def _by_capability(attachment: Attachment, value: str) -> None:
    attachment.capabilities["mac" if value.count(":") == 5 else "ips"] = (
        value if value.count(":") == 5 else [value]
    )


def _by_args(attachment: Attachment, value: str) -> None:
    wanted = {"mac": value} if value.count(":") == 5 else {"ips": [value]}
    attachment.conf["args"] = {"cni": wanted}


def _by_cni_args(attachment: Attachment, value: str) -> None:
    name = "MAC" if value.count(":") == 5 else "IP"
    attachment.args = f"IgnoreUnknown=1;{name}={value}"


WAYS: dict[str, Ask] = {
    "runtimeConfig": _by_capability, "args.cni": _by_args, "CNI_ARGS": _by_cni_args,
}  # fmt: skip


def _free(bench: Bench, network: Network, count: int = 1) -> list[str]:
    """Addresses of the network, with prefix length, that nobody has."""
    attachments = [bench.attachment(bench.pod(), network=network) for _ in range(count)]
    found = [addresses_of(one.attach())[0] for one in attachments]
    for one in attachments:
        one.detach()
    return found


@case("G40", "the pod gets the address asked for", over=WAYS)
def address(bench: Bench, ask: Ask) -> None:
    network = bench.declares("ips")
    (wanted,) = _free(bench, network)
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network)
    ask(attachment, wanted)

    result = attachment.attach()

    plain = wanted.partition("/")[0]
    assert plain in bare(result), f"{bare(result)}, not {wanted}"
    assert plain in [one.address.partition("/")[0] for one in pod.addresses()]
    attachment.detach()


@case("G41", "an address may be asked for without its prefix length",
      over={"runtimeConfig": _by_capability, "CNI_ARGS": _by_cni_args})  # fmt: skip
def bare_address(bench: Bench, ask: Ask) -> None:
    network = bench.declares("ips")
    (wanted,) = bare({"ips": [{"address": one} for one in _free(bench, network)]})
    attachment = bench.attachment(bench.pod(), network=network)
    ask(attachment, wanted)

    result = attachment.attach()

    assert wanted in bare(result), f"{bare(result)}, not {wanted}"
    attachment.detach()


@case("G42", "of several ways to ask for an address, the capability counts")
def precedence(bench: Bench) -> None:
    network = bench.declares("ips")
    first, second, third = _free(bench, network, 3)
    attachment = bench.attachment(bench.pod(), network=network)
    _by_capability(attachment, first)
    _by_args(attachment, second)
    _by_cni_args(attachment, third)

    answer = attachment.add()

    if answer.status == 0:
        assert first.partition("/")[0] in bare(answer.document), f"{answer.told}, not {first}"
        attachment.detach()
    else:
        refused(answer)


@case("G43", "an address that another pod has is refused, and that pod keeps it")
def taken(bench: Bench) -> None:
    network = bench.declares("ips")
    owner, first = bench.attached(network=network)
    assert first.result is not None
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network)
    _by_capability(attachment, addresses_of(first.result)[0])
    with bench.unchanged(owner, pod):
        refused(attachment.call("ADD"))


@case("G44", "what is no address is refused and nothing is kept",
      over={"text": "x", "number": "10.0.0.300/24", "prefix": "10.0.0.3/77"})  # fmt: skip
def no_address(bench: Bench, value: str) -> None:
    network = bench.declares("ips")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, capabilities={"ips": [value]})
    with bench.unchanged(pod):
        refused(attachment.call("ADD"))


@case("G45", "the pod gets the MAC asked for", over=WAYS)
def mac(bench: Bench, ask: Ask) -> None:
    network = bench.declares("mac")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network)
    ask(attachment, WANTED_MAC)

    attachment.attach()

    assert pod.its().mac == WANTED_MAC, f"the MAC is {pod.its().mac}"
    attachment.detach()


@case("G46", "of several ways to ask for a MAC, the capability counts")
def mac_precedence(bench: Bench) -> None:
    network = bench.declares("mac")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network)
    _by_capability(attachment, WANTED_MAC)
    _by_cni_args(attachment, OTHER_MAC)

    attachment.attach()

    assert pod.its().mac == WANTED_MAC, f"the MAC is {pod.its().mac}"
    attachment.detach()


@case(
    "G47",
    "what is no unicast MAC is refused and nothing is kept",
    over={"text": "x", "multicast": "01:00:5e:00:00:01", "zero": "00:00:00:00:00:00"},
)
def no_mac(bench: Bench, value: str) -> None:
    network = bench.declares("mac")
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, capabilities={"mac": value})
    with bench.unchanged(pod):
        refused(attachment.call("ADD"))
