# SPDX-License-Identifier: Apache-2.0
"""What is checked, in its order: each step is a generator of checks, and leaves the lab as it was
but for the last, which takes pycni away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import methodcaller
from typing import Any

from check.lab import Check, Lab, wait
from check.machines import LIBRARIES, PYTHON, Failed, Machine
from check.traffic import answered, family, under_traffic

PYCNI = "/opt/pycni/bin/pycni"
WHEELS = "/pycni/dist/wheels"
REQUIREMENTS = ("grpcio>=1.60,<2", "protobuf>=5.29,<7")
"""What tests/runtimes/cri.py needs."""

ICMP_HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP in an echo packet."""
TRANSFER = 2_000_000
"""Bytes; an emulated machine moves a megabyte or two in a second."""
HOUR = 3600
SETUP_PATIENCE = 600
"""Seconds for a setup; in an emulated machine the compiler alone takes half a minute."""
UNITS = "-u pycni-agent -u pycni-setup"


def prepare(lab: Lab) -> Iterator[Check]:
    """What this test needs in the machines, beside what is provisioned; and two pods on each."""
    for machine, image in zip(lab.machines, lab.on_each(_equip), strict=True):
        yield Check(f"{machine.name}: containerd has {image}", passed=True)
    for letter, machine in zip("ab", lab.machines, strict=True):
        for number in (1, 2):
            lab.add(f"{letter}{number}", machine)
            yield Check(f"pod {letter}{number} on {machine.name}", passed=True,
                        found=" ".join(lab.addresses[f"{letter}{number}"]))  # fmt: skip


def _equip(machine: Machine) -> str:
    """The image of which containerd makes sandboxes."""
    requirements = " ".join(f"'{one}'" for one in REQUIREMENTS)
    machine.run(
        f"[ -d {LIBRARIES} ] || {PYTHON} -m pip install -q --target {LIBRARIES} "
        f"$([ ! -d {WHEELS} ] || echo --no-index --find-links {WHEELS}) {requirements}"
    )
    machine.guest("remove")
    return str(machine.guest("image"))


def pings(lab: Lab) -> Iterator[Check]:
    """Every pod to every other, both families."""
    for source in lab.pods:
        targets = {a: t for t in lab.pods if t != source for a in lab.addresses[t]}
        for answer in lab.echo(source, *targets):
            yield answered(f"ping {source} -> {targets[answer['address']]}", answer)


def largest_packets(lab: Lab) -> Iterator[Check]:
    """A packet as large as the pod's MTU, with DF; and one byte more, which must not leave."""
    for address in lab.addresses["b1"]:
        size = lab.mtu - ICMP_HEADERS[family(address)]
        (fits,) = lab.echo("a1", address, "--size", size, "--dont-fragment")
        yield answered(f"ping of {lab.mtu} bytes with DF a1 -> b1", fits)
        (more,) = lab.echo("a1", address, "--size", size + 1, "--dont-fragment")
        yield Check("one byte more is refused", more["errors"] == more["sent"], str(more))


def transfers(lab: Lab) -> Iterator[Check]:
    """TCP, each way between the nodes, both families."""
    for source, target in (("a1", "b1"), ("b1", "a1")):
        for address in lab.addresses[target]:
            away, here = lab.namespaces[target], lab.namespaces[source]
            with lab.pods[target].peer_running(away, "receive", address) as receiver:
                assert receiver.stdout is not None
                port = json.loads(receiver.stdout.readline())["port"]
                sent = lab.pods[source].peer(here, "send", address, port, TRANSFER)
                got = json.loads(receiver.stdout.readline())
            same = (got["bytes"], got["sha256"]) == (sent["bytes"], sent["sha256"])
            yield Check(f"{TRANSFER // 1_000_000} MB over TCP {source} -> {target} {address}", same)


def hardened_agent(lab: Lab) -> Iterator[Check]:
    """ADD, DEL and GC are done by the agent in its unit, not by the plugin in its place."""
    machine = lab.machines[1]
    since = _now(machine)
    lab.add("b3", machine)
    known = machine.guest("sandboxes")
    machine.guest("stray", "stray")
    collected = machine.guest("gc", *known)
    machine.run("ip netns delete stray")
    machine.guest("remove", "b3")
    del lab.pods["b3"]
    said = _journal(machine, since)
    yield Check("GC of a stray attachment", collected == 0, f"status {collected}")
    for command in ("ADD", "GC", "DEL"):
        done = any(
            f"command={command}" in line and "status=0" in line for line in said.splitlines()
        )
        yield Check(f"the agent answered {command}", done, "" if done else said[-2000:])
    names = [one["container"] for one in _pycni(machine, "endpoints")]
    yield Check("the stray's endpoint is gone", "stray" not in names, " ".join(names))
    denied = machine.run(f"journalctl {UNITS} -o cat | grep -ci 'not permitted' || true")
    yield Check("nothing was denied to the units", denied.strip() == "0", denied.strip())


def agent_killed(lab: Lab) -> Iterator[Check]:
    """An agent that is killed comes back, and no packet is lost meanwhile."""
    machine = lab.machines[1]
    before = machine.run("systemctl show -P MainPID pycni-agent").strip()

    def kill() -> None:
        machine.run("systemctl kill --kill-who=main --signal=KILL pycni-agent")
        wait("the agent is back", lambda: _is_active(machine, "pycni-agent", unlike=before))

    yield from under_traffic(lab, "an agent killed", kill)


def store_away(lab: Lab) -> Iterator[Check]:
    """etcd stopped: packets flow, nothing is deleted, the agents say so; it comes back."""
    store, other = lab.machines
    remotes = _pycni(other, "maps", "dump", "remotes")
    since = _now(other)

    def stop() -> None:
        store.run("systemctl stop etcd")
        wait("the agent complains", lambda: "does not answer" in _journal(other, since))

    yield from under_traffic(lab, "etcd stopped", stop)
    same = _pycni(other, "maps", "dump", "remotes") == remotes
    yield Check("etcd stopped: the remotes are as they were", same)
    failed = _refused(other, f"{PYCNI} nodes")
    yield Check(
        "etcd stopped: `pycni nodes` says what to do", "check that etcd runs" in failed, failed
    )
    store.run("systemctl start etcd")
    wait("both agents are alive", lambda: _alive(store) == len(lab.machines))
    yield Check("etcd back: both agents are alive", passed=True)


def clock_off(lab: Lab) -> Iterator[Check]:
    """A node whose clock is three hours ahead is as alive as before, and its packets arrive."""
    store, other = lab.machines
    other.run(f"date -s @$(( $(date +%s) + 3 * {HOUR} ))")
    try:
        other.run("systemctl restart pycni-agent")
        wait("both agents are alive", lambda: _alive(store) == _alive(other) == len(lab.machines))
        yield Check("a clock three hours ahead: both nodes see both agents alive", passed=True)
        (answer,) = lab.echo("a1", lab.addresses["b1"][0])
        yield answered("a clock three hours ahead: ping a1 -> b1", answer)
    finally:
        other.run(f"date -s @$(( $(date +%s) - 3 * {HOUR} ))")


def same_name(lab: Lab) -> Iterator[Check]:
    """A machine with another's node name is refused, and stays what it is."""
    store, other = lab.machines
    before = _pycni(store, "nodes")
    other.run(
        f"sed 's/^node_name.*/node_name = \"{store.name}\"/' /etc/pycni/pycni.toml >/run/twin"
    )
    failed = _refused(other, f"{PYCNI} --config /run/twin setup")
    other.run("rm /run/twin")
    yield Check("two nodes of one name: refused", "is in use by another machine" in failed, failed)
    yield Check("two nodes of one name: the hint", "its own node_name" in failed)
    places = [[one[key] for one in before] for key in ("name", "vtep", "pod_cidrs")]
    after = _pycni(store, "nodes")
    same = places == [[one[key] for one in after] for key in ("name", "vtep", "pod_cidrs")]
    yield Check("two nodes of one name: the cluster is as it was", same, "" if same else str(after))


def taken_apart(lab: Lab) -> Iterator[Check]:
    """Others delete what is pycni's on a node: packets still arrive, and its unit mends it."""
    machine = lab.machines[1]
    whole = _state(machine, "hooks")
    machine.run("tc qdisc delete dev eth1 clsact")
    machine.guest("cut_off")
    for answer in lab.echo("a1", *lab.addresses["b1"]):
        yield answered("programs and table deleted: ping a1 -> b1", answer)
    machine.run("systemctl restart pycni-setup", timeout=SETUP_PATIENCE)
    mended = _state(machine, "hooks")
    back = mended.startswith(whole)
    yield Check("pycni-setup restarted: the programs are back", back, mended)
    yield Check("pycni-setup restarted: the table is back", machine.guest("masquerades"))


def upgrade(lab: Lab) -> Iterator[Check]:
    """Other programs and a new agent on both nodes, under traffic."""
    before = [_state(machine, "programs") for machine in lab.machines]

    def restart() -> None:
        for machine in lab.machines:
            machine.guest("newer")
            machine.run("systemctl restart pycni-setup pycni-agent", timeout=SETUP_PATIENCE)

    yield from under_traffic(lab, "an upgrade of both nodes", restart)
    for machine, old in zip(lab.machines, before, strict=True):
        new = _state(machine, "programs")
        yield Check(f"{machine.name} runs other programs", new != old, f"{old} -> {new}")


def reboot(lab: Lab) -> Iterator[Check]:
    """A node boots anew: it is a node again by itself, and takes new pods."""
    machine = lab.machines[1]
    machine.reboot()
    wait("the agent serves", lambda: _is_active(machine, "pycni-agent"))
    wait("the dataplane is there", lambda: _is_active(machine, "pycni-setup"))
    machine.guest("remove")
    for name in ("b1", "b2"):
        lab.add(name, machine)
    yield Check(f"{machine.name} is back, with new pods", passed=True)
    yield from pings(lab)


def side_by_side(lab: Lab) -> Iterator[Check]:
    """The maps of both nodes, next to each other."""
    for name in ("remotes", "vteps", "endpoints"):
        command = f"{PYCNI} maps dump {name}"
        texts = [text.splitlines() for text in lab.on_each(methodcaller("run", command))]
        print(f"\n  {name}")
        for row in _columns([[machine.name, *text] for machine, text in
                             zip(lab.machines, texts, strict=True)]):  # fmt: skip
            print(f"    {row}")
        yield Check(f"{name} of both nodes have entries", all(len(text) > 1 for text in texts))
    rows = lab.on_each(lambda machine: _pycni(machine, "maps", "dump", "vteps"))
    vteps = [{row["vtep"] for row in one} for one in rows]
    yield Check(
        "each node knows the other's VTEP and not its own", not vteps[0] & vteps[1], str(vteps)
    )


def teardown(lab: Lab) -> Iterator[Check]:
    """pycni taken away: nothing of it is left."""
    for machine, traces in zip(lab.machines, lab.on_each(_take_away), strict=True):
        yield Check(f"{machine.name}: nothing of pycni is left", not traces, "; ".join(traces))


def _take_away(machine: Machine) -> list[str]:
    """What is left of pycni."""
    machine.guest("remove")
    before = machine.guest("parameters")
    machine.run("systemctl disable --now pycni-agent pycni-setup")
    machine.run(f"{PYCNI} teardown --yes")
    machine.run(f"{PYCNI} uninstall --bin-dir /usr/lib/cni && systemctl daemon-reload")
    traces: list[str] = machine.guest("traces", json.dumps(before))
    return traces


STEPS = (
    *(prepare, pings, largest_packets, transfers, hardened_agent, agent_killed, store_away),
    *(clock_off, same_name, taken_apart, upgrade, reboot, side_by_side, teardown),
)


def _pycni(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    """A noun of the CLI."""
    rows: list[dict[str, Any]] = json.loads(machine.run(f"{PYCNI} {' '.join(arguments)} -o json"))
    return rows


def _state(machine: Machine, check: str) -> str:
    """One line of `pycni status`, which fails if not all is well."""
    rows = json.loads(machine.run(f"{PYCNI} status -o json || true"))
    (row,) = (row for row in rows if row["name"] == check)
    return str(row["cause"])


def _refused(machine: Machine, command: str) -> str:
    """What a command says that must fail."""
    try:
        machine.run(command)
    except Failed as error:
        return str(error)
    return "it succeeded"


def _alive(machine: Machine) -> int:
    try:
        return sum(one["agent"] == "alive" for one in _pycni(machine, "nodes"))
    except Failed:
        return 0


def _is_active(machine: Machine, unit: str, *, unlike: str = "") -> bool:
    lines = machine.run(f"systemctl show -p ActiveState -p MainPID {unit}").splitlines()
    state = dict(line.split("=", 1) for line in lines)  # in systemd's order, not in ours
    return state["ActiveState"] == "active" and state["MainPID"] != unlike


def _now(machine: Machine) -> str:
    return machine.run("date '+%Y-%m-%d %H:%M:%S'").strip()


def _journal(machine: Machine, since: str) -> str:
    """What the agent said since then, by the machine's own clock."""
    return machine.run(f"journalctl -u pycni-agent -o cat --since '{since}'")


def _columns(texts: list[list[str]]) -> list[str]:
    """Lines of several texts next to each other."""
    widths = [max(map(len, text)) for text in texts]
    height = max(map(len, texts))
    padded = [[*text, *[""] * (height - len(text))] for text in texts]
    return [
        "   ".join(line.ljust(width) for line, width in zip(lines, widths, strict=True)).rstrip()
        for lines in zip(*padded, strict=True)
    ]
