# SPDX-License-Identifier: Apache-2.0
"""D: DEL, which must succeed whatever is still there, and touch nothing of others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from conformance import namespaces, traffic
from conformance.bench import Bench, bare, host_link
from conformance.call import silent
from conformance.netlink import STRANGER_MAC, Rtnl
from conformance.registry import case
from conformance.runtime import Attachment
from conformance.sandbox import UPLINK

WRONG_PREVIOUS: dict[str, object] = {
    "null": None, "number": 5, "list": [], "empty": {}, "half": {"ips": "x"},
    "strange version": {"cniVersion": "9.9.9", "ips": []},
}  # fmt: skip


@case("D1", "after DEL nothing is left", versions=True, networks=True)
def nothing_left(bench: Bench, *, version: str, network: str) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod, network=network, version=version)
    with bench.unchanged(pod):
        attachment.attach()
        host = host_link(attachment, pod)

        attachment.detach()

        with Rtnl() as rtnl:
            assert rtnl.link(host.name) is None, "the host's end is there when DEL returns"


@case("D2", "DEL may be repeated")
def repeated(bench: Bench) -> None:
    _, attachment = bench.attached()
    previous = {"prevResult": attachment.result}
    attachment.detach()
    with bench.unchanged():
        silent(attachment.call("DEL", conf=previous))
        silent(attachment.call("DEL"))
        silent(attachment.call("DEL", env={"CNI_NETNS": ""}))


@case("D3", "DEL of what never was succeeds and makes nothing")
def never(bench: Bench) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        bench.attachment(pod).detach()


@case("D4", "DEL needs no prevResult, nor a right one", over={"absent": ..., **WRONG_PREVIOUS})
def previous(bench: Bench, value: object) -> None:
    pod, attachment = bench.attached()
    silent(attachment.call("DEL", conf={} if value is ... else {"prevResult": value}))
    attachment.result = None

    assert pod.link() is None, "the interface is still in the pod"


@case("D5", "DEL succeeds when the namespace is gone", over={"path": False, "empty": True})
def namespace_gone(bench: Bench, empty: bool) -> None:
    pod, attachment = bench.attached()
    namespaces.remove(pod.path)

    attachment.detach(env={"CNI_NETNS": ""} if empty else {})


@case("D6", "DEL succeeds when the path is a plain file, as after a lost mount")
def plain_file(bench: Bench) -> None:
    pod, attachment = bench.attached()
    namespaces.unmount(pod.path)

    attachment.detach()


@case("D7", "DEL does not touch a stranger's interface in a namespace made anew at the path")
def another_namespace(bench: Bench) -> None:
    pod, attachment = bench.attached()
    namespaces.remove(pod.path)
    namespaces.make(pod.path.name)
    with Rtnl(pod.path) as rtnl:
        rtnl.add_stranger("eth0")

    attachment.detach()

    assert pod.its().mac == STRANGER_MAC, "the stranger's interface was changed"


@case("D8", "DEL does not touch the host's own interface, whatever CNI_NETNS says")
def own_namespace(bench: Bench) -> None:
    attachment = bench.attachment(netns="/proc/self/ns/net", ifname=UPLINK)
    with Rtnl() as rtnl:
        before = rtnl.link(UPLINK)
        answer = attachment.call("DEL")
        found = rtnl.link(UPLINK)

        assert found is not None, "the host's uplink was deleted"
    assert found == before, f"the host's uplink was changed: {found}"
    silent(answer)


@case("D9", "DEL does not touch a stranger's interface that took the name in the same namespace")
def replaced(bench: Bench) -> None:
    pod, attachment = bench.attached()
    with Rtnl(pod.path) as rtnl:
        rtnl.set_link(pod.its().index, up=False)
        rtnl.set_link(pod.its().index, name="moved0")
        rtnl.add_stranger("eth0")

    attachment.detach()

    found = pod.link()
    assert found is not None, "the stranger's interface was deleted"
    assert found.mac == STRANGER_MAC, "the stranger's interface was changed"


@case("D10", "DEL succeeds when the container deleted its interface")
def deleted_inside(bench: Bench) -> None:
    pod, attachment = bench.attached()
    with Rtnl(pod.path) as rtnl:
        rtnl.delete_link(pod.its().index)

    attachment.detach()


@case("D11", "DEL succeeds when the host's end was renamed")
def renamed(bench: Bench) -> None:
    pod, attachment = bench.attached()
    host = host_link(attachment, pod)
    with Rtnl() as rtnl:
        rtnl.set_link(host.index, up=False)
        rtnl.set_link(host.index, name="renamed0")

    attachment.detach()

    with Rtnl() as rtnl:
        assert rtnl.link("renamed0") is None, "the host's end is still there"


@case("D12", "with the path gone and a process still in the namespace, the host's end goes too")
def held_alive(bench: Bench) -> None:
    pod, attachment = bench.attached()
    host = host_link(attachment, pod)
    with namespaces.sandbox_process(pod.path):
        namespaces.remove(pod.path)

        attachment.detach(env={"CNI_NETNS": ""})

        with Rtnl() as rtnl:
            assert rtnl.link(host.name) is None, "the host's end is still there"


@case("D13", "DEL of one interface leaves the container's others")
def one_of_two(bench: Bench) -> None:
    pod, first = bench.attached()
    second = bench.attachment(bench.pod(), container_id=first.container_id, ifname="net1")
    second.attach()

    second.detach()

    assert pod.link() is not None, "the other interface went, too"
    _answers(first)


@case("D14", "DEL finds what was made when the configuration changed since",
      over={"mtu": {"mtu": 1300}, "dns": {"dns": {"domain": "x"}}, "other version": {"cniVersion": "0.3.1"}})  # fmt: skip  # noqa: E501
def changed_since(bench: Bench, changes: dict[str, object]) -> None:
    pod, attachment = bench.attached()
    silent(attachment.call("DEL", conf=changes))
    attachment.result = None

    assert pod.link() is None, "the interface is still in the pod"


@case("D15", "three DELs of one attachment at once succeed")
def at_once(bench: Bench) -> None:
    _, attachment = bench.attached()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: attachment.call("DEL"), range(3)))
    attachment.result = None

    for answer in answers:
        silent(answer)


@case("D16", "a late DEL of a pod's old sandbox leaves its new one")
def old_sandbox(bench: Bench) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=same"
    _, old = bench.attached(args=args)
    pod, new = bench.attached(args=args)

    old.detach()
    old.detach()

    assert pod.link() is not None, "the new sandbox lost its interface"
    _answers(new)


@case("D17", "after a reboot, with all links gone, DEL succeeds and frees what was kept")
def reboot(bench: Bench) -> None:
    pod, attachment = bench.attached()
    host = host_link(attachment, pod)
    namespaces.remove(pod.path)
    with Rtnl() as rtnl:
        rtnl.delete_link(host.index)

    silent(attachment.call("DEL", env={"CNI_NETNS": ""}))
    attachment.result = None


@case("D18", "an invalid interface name or odd parameters do not hinder DEL of nothing",
      over={"long": "e" * 16, "percent": "eth%d", "lo": "lo"})  # fmt: skip
def odd_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        answer = bench.attachment(pod, ifname=name).call("DEL")
        assert answer.status == 0 or answer.document.get("code") == 4, answer.told


@case("D19", "DEL with a path that now leads to another container's namespace leaves that one")
def path_of_another(bench: Bench) -> None:
    gone, old = bench.attached()
    namespaces.remove(gone.path)
    pod, other = bench.attached()

    answer = old.delete(env={"CNI_NETNS": other.netns})

    assert pod.link() is not None, "the other container lost its interface"
    _answers(other)
    silent(answer)


@case("D20", "an address is not given to another pod while its first owner still answers")
def not_reused(bench: Bench) -> None:
    _, first = bench.attached()
    assert first.result is not None
    taken = set(bare(first.result))
    for _ in range(3):
        _, other = bench.attached()
        assert other.result is not None
        assert not taken & set(bare(other.result)), "an address was given twice"
        taken |= set(bare(other.result))


def _answers(attachment: Attachment) -> None:
    assert attachment.result is not None
    for address in bare(attachment.result):
        assert traffic.pings(None, address), f"{address} no longer answers"
