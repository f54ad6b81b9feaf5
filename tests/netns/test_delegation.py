# SPDX-License-Identifier: Apache-2.0
"""Addresses from another IPAM plugin: asked, obeyed, and given back whatever happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pycni.ipam import delegation_records
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from pycni.lab.topology import open_rtnl
from pycni.names import AttachmentKey
from pycni.node.record import Node
from pycni.settings import load
from support.flood import unanswered
from support.labs import made_pod, rows
from support.plugin import execute
from support.snapshot import differences, take
from support.waiting import wait_until

SUBNETS = ["10.215.0.0/24", "fd00:215::/64"]
UNAVAILABLE = 104
TRY_AGAIN = 11
UNTOLD = "192.0.2.77"
BOTH = [False, True]

PLUGIN = """
import json, os, socket, sys, time
from pathlib import Path
here = Path(__file__).parent
command = os.environ["CNI_COMMAND"]
conf = json.loads(sys.stdin.read())
how = conf["ipam"].get(command, {})
time.sleep(how.get("sleep", 0))
lease = here / (os.environ["CNI_CONTAINERID"] + ".lease")
with (here / "calls").open("a") as calls:
    calls.write(command + "\\n")
if command == "ADD" and "error" not in how:
    lease.touch()
if command == "DEL":
    (here / "links").write_text(" ".join(name for _, name in socket.if_nameindex()))
if command == "DEL" and "error" not in how:
    lease.unlink(missing_ok=True)
if "error" in how:
    print(json.dumps(how["error"]))
    sys.exit(1)
if "print" in how:
    print(how["print"])
elif command == "ADD":
    ips = [{"address": one, "gateway": gw} for one, gw in conf["ipam"]["give"]]
    print(json.dumps({"cniVersion": conf["cniVersion"], "ips": ips}))
"""


class Ipam:
    """A plugin that gives what it is told to, and what it did."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = directory / "given"
        self.install()

    def install(self) -> None:
        self.program.write_text(f"#!{sys.executable} -IS\n{PLUGIN}")
        self.program.chmod(0o755)

    def rename(self, name: str) -> None:
        self.program = self.program.rename(self.directory / name)

    def conf(self, *last: int, **how: Any) -> dict[str, Any]:
        give = [
            (f"{net.partition('/')[0].removesuffix('0')}{number}/{net.partition('/')[2]}", gateway)
            for number in last or (33,)
            for net, gateway in zip(SUBNETS, ("10.215.0.1", "fd00:215::1"), strict=True)
        ]
        return {"type": self.program.name, "give": give} | how

    @property
    def path(self) -> dict[str, str]:
        return {"CNI_PATH": str(self.directory)}

    def leases(self) -> list[str]:
        return [path.stem for path in self.directory.glob("*.lease")]

    def links_at_del(self) -> list[str]:
        """The node's interfaces at the last DEL."""
        return (self.directory / "links").read_text().split()

    def calls(self) -> list[str]:
        """Since the last question."""
        path = self.directory / "calls"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


def pod_cidr(lab: Lab, index: int) -> str:
    """The beginning of a node's IPv4 pod CIDR."""
    node = Node.load(load(lab.layout.nodes[index].settings_path))
    return str(node.pod_cidrs[0]).removesuffix("0/24")


@pytest.fixture
def ipam(tmp_path: Path) -> Ipam:
    return Ipam(tmp_path)


@pytest.fixture
def clean(lab: Lab, spare: Pod, ipam: Ipam) -> Iterator[None]:
    """Whatever a test does, its node and the IPAM plugin are as before when it has ended."""
    node = lab.layout.node(spare.node)
    everyone = [one for pod in lab.layout.pods for one in lab.addresses(pod)]
    assert unanswered(lab, node.netns, everyone) == []  # the node's neighbours are known
    before = take(node)
    yield
    with suppress(AssertionError):  # the agent may be at it
        wait_until(lambda: differences(before, take(node)) == [], "the node is as before")
    assert differences(before, take(node)) == []
    assert ipam.leases() == []
    assert list((node.directory / "state" / "delegated").glob("*")) == []


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_a_delegated_pod_reaches_everybody_and_everybody_it(
    lab: Lab, spare: Pod, ipam: Ipam, alone: bool
) -> None:
    near, far = lab.layout.pods[0], lab.layout.pods[-1]
    everyone = [one for pod in (near, far) for one in lab.addresses(pod)]

    added = execute(lab, spare, "ADD", alone=alone, env=ipam.path, ipam=ipam.conf())

    assert added.status == 0, added.text + added.stderr
    assert added.addresses == ["10.215.0.33", "fd00:215::33"]
    assert added.document["ips"][0]["address"] == "10.215.0.33/24"
    wait_until(
        lambda: len(rows(lab, lab.layout.nodes[1], "remotes")) == 4, "the other node is told"
    )
    assert unanswered(lab, spare.netns, everyone) == []
    assert unanswered(lab, far.netns, added.addresses) == []
    assert unanswered(lab, near.netns, added.addresses) == []
    assert unanswered(lab, lab.layout.nodes[0].netns, added.addresses) == []
    checked = execute(
        lab, spare, "CHECK", alone=alone, env=ipam.path, ipam=ipam.conf(), prevResult=added.document
    )
    assert checked.status == 0, checked.text
    deleted = execute(lab, spare, "DEL", alone=alone, env=ipam.path, ipam=ipam.conf())
    assert deleted.status == 0, deleted.text
    assert ipam.calls() == ["ADD", "CHECK", "DEL"]
    wait_until(
        lambda: len(rows(lab, lab.layout.nodes[1], "remotes")) == 2, "the other node is told"
    )


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_a_failing_add_gives_back_what_ipam_gave_once(
    lab: Lab, spare: Pod, ipam: Ipam, alone: bool
) -> None:
    busy = lab.addresses(lab.layout.pods[0])[0]
    conf = ipam.conf() | {"give": [(f"{busy}/24", None)]}

    added = execute(lab, spare, "ADD", alone=alone, env=ipam.path, ipam=conf)

    assert added.document["code"] == UNAVAILABLE, added.text
    assert ipam.calls() == ["ADD", "DEL"]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "given",
    [
        "169.254.1.1",
        "127.0.0.2",
        "224.0.0.5",
        "0.0.0.0",
        "fe80::5",
        "a node's",
        "a gateway's",
        "a second of a node",
        "a second of this node",
    ],
)
def test_an_address_that_others_need_or_that_reaches_nobody_is_refused(
    lab: Lab, spare: Pod, ipam: Ipam, given: str
) -> None:
    named = {
        "a node's": str(lab.layout.nodes[1].underlay[0].ip), "a gateway's": f"{pod_cidr(lab, 0)}1",
        "a second of a node": str(lab.layout.nodes[1].underlay[1].ip),
        "a second of this node": str(lab.layout.nodes[0].underlay[1].ip),
    }  # fmt: skip
    address = named.get(given, given)
    conf = ipam.conf() | {"give": [(f"{address}/24", None)]}

    added = execute(lab, spare, "ADD", env=ipam.path, ipam=conf)

    assert added.document["code"] == UNAVAILABLE, added.text
    assert address in added.text
    assert ipam.calls() == ["ADD", "DEL"]


@pytest.mark.usefixtures("clean")
def test_an_address_of_this_node_that_no_store_knows_is_refused(
    lab: Lab, spare: Pod, ipam: Ipam
) -> None:
    conf = ipam.conf() | {"give": [(f"{UNTOLD}/24", None)]}
    with open_rtnl(lab.layout.node(spare.node).netns) as ipr:
        loopback = ipr.ifindex("lo")
        ipr.add_address(loopback, ip_address(UNTOLD))
        try:
            added = execute(lab, spare, "ADD", env=ipam.path, ipam=conf)
        finally:
            ipr.delete_address(loopback, ip_address(UNTOLD), prefixlen=32)

    assert added.document["code"] == UNAVAILABLE, added.text


@pytest.mark.usefixtures("clean")
def test_a_duplicate_add_does_not_disturb_ipam(lab: Lab, spare: Pod, ipam: Ipam) -> None:
    execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf())

    again = execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf())

    assert again.document["code"] == 101
    assert ipam.leases() == [spare.name]
    assert ipam.calls() == ["ADD"]
    execute(lab, spare, "DEL", env=ipam.path, ipam=ipam.conf())


@pytest.mark.usefixtures("clean")
def test_del_removes_what_an_add_left_that_was_killed_while_it_wrote(
    lab: Lab, spare: Pod, ipam: Ipam
) -> None:
    key = AttachmentKey(lab.layout.name, spare.name, POD_IFNAME)
    records = lab.layout.node(spare.node).directory / "state" / delegation_records.DIRECTORY
    half = records / f".{key.digest}.json.new"
    half.write_text('{"network": ')

    deleted = execute(lab, spare, "DEL", env=ipam.path, ipam=ipam.conf())

    assert deleted.status == 0, deleted.text
    assert not half.exists()


@pytest.mark.usefixtures("clean")
def test_ipams_own_error_is_passed_on(lab: Lab, spare: Pod, ipam: Ipam) -> None:
    error = {"code": 123, "msg": "subnet not found", "details": "in my file"}

    added = execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf(ADD={"error": error}))

    assert {key: added.document[key] for key in error} == error
    assert ipam.calls() == ["ADD"]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("said", "code"),
    [("", 6), ("noise", 6), ("null", 6), ("{}", 108), ('{"ips": [{"address": "10.1.1.1"}]}', 6)],
)
def test_ipam_that_says_nonsense_is_told_to_give_back(
    lab: Lab, spare: Pod, ipam: Ipam, said: str, code: int
) -> None:
    added = execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf(ADD={"print": said}))

    assert added.document["code"] == code, added.text
    assert ipam.calls() == ["ADD", "DEL"]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_a_plugin_gone_at_del_keeps_only_its_own_lease(
    lab: Lab, spare: Pod, ipam: Ipam, alone: bool
) -> None:
    execute(lab, spare, "ADD", alone=alone, env=ipam.path, ipam=ipam.conf())
    ipam.program.unlink()

    refused = execute(lab, spare, "DEL", alone=alone, env=ipam.path, ipam=ipam.conf())

    assert refused.document["code"] == TRY_AGAIN
    assert "not found" not in refused.text
    assert rows(lab, lab.layout.nodes[0], "endpoints") == [
        row for row in rows(lab, lab.layout.nodes[0], "endpoints") if "215" not in row["address"]
    ]
    ipam.install()
    again = execute(lab, spare, "DEL", alone=alone, env=ipam.path, ipam={"type": "another"})
    assert again.status == 0, again.text


@pytest.mark.usefixtures("clean")
def test_a_namespace_that_ends_gives_back_the_lease_too(lab: Lab, ipam: Ipam) -> None:
    with made_pod(lab, lab.layout.nodes[0]) as pod:
        added = execute(lab, pod, "ADD", env=ipam.path, ipam=ipam.conf(44))
        assert added.status == 0, added.text
    records = lab.layout.nodes[0].directory / "state" / delegation_records.DIRECTORY
    wait_until(
        lambda: ipam.leases() == [] and list(records.iterdir()) == [],
        "the agent has the lease released",
    )


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_gc_keeps_what_is_valid_and_has_ipam_release_the_rest(
    lab: Lab, spare: Pod, ipam: Ipam, alone: bool
) -> None:
    kept = {"containerID": spare.name, "ifname": "eth0"}
    execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf(33))
    with made_pod(lab, lab.layout.nodes[0]) as stale:
        execute(lab, stale, "ADD", env=ipam.path, ipam=ipam.conf(44))
        mine = {
            "cniVersion": "1.1.0", "ipam": ipam.conf(), "cni.dev/valid-attachments": [kept],
        }  # fmt: skip
        others = json.loads(json.dumps(mine)) | {
            "cni.dev/valid-attachments": [
                kept, *({"containerID": pod.name, "ifname": "eth0"} for pod in lab.layout.pods),
            ]
        }  # fmt: skip
        ipam.calls()

        collected = execute(lab, spare, "GC", alone=alone, env=ipam.path, **others)

        assert (collected.status, collected.document) == (0, {}), collected.text
        assert ipam.leases() == [spare.name]
        assert ipam.calls() == ["DEL", "GC"]
        assert unanswered(lab, lab.layout.pods[0].netns, ["10.215.0.33"]) == []
    execute(lab, spare, "DEL", env=ipam.path, ipam=ipam.conf())


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_gc_of_another_network_touches_nothing(lab: Lab, spare: Pod, alone: bool) -> None:
    elsewhere: dict[str, Any] = {
        "name": f"{lab.layout.name}-too", "cniVersion": "1.1.0", "cni.dev/valid-attachments": None
    }  # fmt: skip

    assert execute(lab, spare, "GC", alone=alone, **elsewhere).status == 0


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_status_is_well_and_forwards(lab: Lab, spare: Pod, ipam: Ipam, alone: bool) -> None:
    error = {"code": 50, "msg": "the server is away"}

    well = execute(lab, spare, "STATUS", alone=alone, cniVersion="1.1.0")
    theirs = execute(
        lab, spare, "STATUS", alone=alone, env=ipam.path,
        cniVersion="1.1.0", ipam=ipam.conf(STATUS={"error": error}),
    )  # fmt: skip

    assert (well.status, well.document) == (0, {}), well.text
    assert (theirs.status, theirs.document["msg"]) == (1, "the server is away")


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("alone", BOTH)
def test_addresses_and_mac_that_are_asked_for_are_had(lab: Lab, spare: Pod, alone: bool) -> None:
    wanted = f"{pod_cidr(lab, 0)}77"
    runtime = {"ips": [f"{wanted}/24"], "mac": "0A:00:00:00:00:07"}

    added = execute(lab, spare, "ADD", alone=alone, runtimeConfig=runtime)
    with made_pod(lab, lab.layout.nodes[0]) as second:
        refused = execute(lab, second, "ADD", alone=alone, args={"cni": runtime})

    assert added.status == 0, added.text
    assert added.addresses[0] == wanted
    assert len(added.addresses) == 2
    assert added.document["interfaces"][1]["mac"] == "0a:00:00:00:00:07"
    assert refused.document["code"] == UNAVAILABLE, refused.text
    assert execute(lab, spare, "DEL", alone=alone).status == 0


@pytest.mark.usefixtures("clean")
def test_an_address_of_another_node_is_refused_and_one_of_nobody_is_published(
    lab: Lab, spare: Pod
) -> None:
    theirs = execute(lab, spare, "ADD", env={"CNI_ARGS": f"IP={pod_cidr(lab, 1)}77"})
    nobodys = execute(lab, spare, "ADD", env={"CNI_ARGS": "IP=10.244.99.77"})

    assert theirs.document["code"] == UNAVAILABLE, theirs.text
    assert nobodys.status == 0, nobodys.text
    wait_until(
        lambda: len(rows(lab, lab.layout.nodes[1], "remotes")) == 3, "the other node is told"
    )
    assert unanswered(lab, lab.layout.pods[-1].netns, ["10.244.99.77"]) == []
    execute(lab, spare, "DEL")
    wait_until(
        lambda: len(rows(lab, lab.layout.nodes[1], "remotes")) == 2, "the other node is told"
    )


@pytest.mark.usefixtures("clean")
def test_ranges_and_exclusions_choose_the_address(lab: Lab, spare: Pod) -> None:
    own = pod_cidr(lab, 0)
    ipam = {
        "ranges": [{"subnet": f"{own}0/24", "rangeStart": f"{own}200"}],
        "exclude": [f"{own}200/30", f"{own}204/32"],
    }

    added = execute(lab, spare, "ADD", ipam=ipam)
    execute(lab, spare, "DEL")
    wrong = execute(lab, spare, "ADD", ipam={"ranges": [f"{pod_cidr(lab, 1)}0/24"]})

    assert added.addresses[0] == f"{own}205"
    assert wrong.document["code"] == 7
    assert "pod CIDR of node" in wrong.text
