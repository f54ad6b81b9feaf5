# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/config.py: what BIRD is told. BIRD itself checks each text, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.bgp.config import Speaker, render
from pycni.bgp_settings import Bgp
from unit.bgp.samples import BGP, NODE, PEER, SPEAKER

SECRET = Path("/etc/pycni/bgp.password")
PUBLISHED = (ip_network("10.250.0.7/32"),)
NODES = replace(PEER, name="node_198_18_0_2", asn=64512, is_node=True)
IPV6 = replace(PEER, name="peer_fd00__1", address=ip_address("fd00::1"))
SERVICES = (ip_network("10.96.0.10/32"), ip_network("fd00:96::10/128"))
NETWORKS = (ip_network("10.96.0.0/16"),)


def bgp(**values: Any) -> Bgp:
    return BGP.model_copy(update=values)


SPEAKERS = {
    "plain": SPEAKER,
    "silent": replace(SPEAKER, announces=False),
    "learns pods": replace(SPEAKER, bgp=bgp(learn=("pods",))),
    "learns the fabric": replace(SPEAKER, bgp=bgp(learn=("fabric",)), neighbours=(PEER, NODES)),
    "reflects": replace(SPEAKER, neighbours=(replace(NODES, client=True), PEER)),
    "all of a peer": replace(
        SPEAKER,
        published=PUBLISHED,
        passwords={SECRET: "geheim"},
        neighbours=(
            replace(PEER, password_file=SECRET, bfd=True, multihop=3,
                    communities=("1:2", "3:4:5")), IPV6,
        ),
    ),
    "Services": replace(SPEAKER, services=SERVICES, bgp=bgp(
        learn=("fabric",), announce=("cluster-ips",), service_networks=NETWORKS)),
    "no graceful restart": replace(SPEAKER, bgp=bgp(graceful_restart=False)),
    "IPv6 underlay": replace(
        SPEAKER, node=replace(NODE, vtep=ip_address("fd00::9")), neighbours=(IPV6, PEER)
    ),
    "IPv4 alone": replace(SPEAKER, node=replace(
        NODE, cluster_cidrs=NODE.cluster_cidrs[:1], pod_cidrs=NODE.pod_cidrs[:1])),
    "nobody": replace(SPEAKER, neighbours=()),
}  # fmt: skip


def block(text: str, head: str) -> list[str]:
    """The lines of one block."""
    rest = text.split(f"{head} {{\n", 1)[1]
    return [line.strip() for line in rest.split("\n}\n", 1)[0].splitlines()]


@pytest.mark.parametrize("speaker", SPEAKERS.values(), ids=SPEAKERS.keys())
def test_bird_takes_it(tmp_path: Path, speaker: Speaker) -> None:
    if shutil.which("bird") is None:
        pytest.skip("no BIRD on this machine: apt-get install bird2")
    file = tmp_path / "bird.conf"
    file.write_text(render(speaker))

    done = subprocess.run(["bird", "-p", "-c", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr  # from 2.16 on it says that a password is for MD5


def test_own_networks_lead_nowhere_and_never_reach_the_kernel():
    text = render(SPEAKER)

    assert block(text, "protocol static own4") == ["ipv4;", "route 10.244.1.0/24 unreachable;"]
    assert block(text, "protocol static own6") == ["ipv6;", "route fd00:10:244:1::/64 unreachable;"]
    kernels = [line for line in text.splitlines() if line.startswith("protocol kernel")]
    assert all("export none" in line and "table igp" in line for line in kernels)


def test_nothing_but_what_is_this_nodes_comes_in_by_default():
    assert block(render(SPEAKER), f"filter from_{PEER.name}") == [
        "if net ~ [ 10.244.1.0/24 ] then accept;",
        "if net ~ [ fd00:10:244:1::/64 ] then accept;",
        "reject;",
    ]


def test_pod_cidrs_of_the_right_length_come_in_where_they_are_learnt():
    found = block(render(SPEAKERS["learns pods"]), f"filter from_{PEER.name}")

    assert "if net ~ [ 10.244.0.0/16{24,24} ] then accept;" in found
    assert found[-1] == "reject;"


def test_the_fabric_tells_nothing_of_the_cluster_and_nodes_tell_nothing_of_the_fabric():
    text = render(SPEAKERS["learns the fabric"])

    of_peer = block(text, f"filter from_{PEER.name}")
    assert of_peer.index("if net ~ [ 10.244.0.0/16+ ] then reject;") < of_peer.index("accept;")
    assert "accept;" not in block(text, f"filter from_{NODES.name}")
    assert block(text, "filter fabric")[:2] == [
        "if net ~ [ 10.244.0.0/16+ ] then reject;",
        "if net ~ [ fd00:10:244::/56+ ] then reject;",
    ]


def test_only_its_own_is_told_but_by_a_reflector():
    reflected = "if source = RTS_BGP"

    assert reflected not in render(SPEAKER)
    assert reflected in render(SPEAKERS["reflects"])
    assert block(render(SPEAKER), f"filter to_{PEER.name}")[-1] == "reject;"


def test_a_silent_node_keeps_its_sessions_and_says_nothing():
    text = render(SPEAKERS["silent"])

    assert "protocol static" not in text
    assert f"protocol bgp {PEER.name} {{" in text


def test_what_is_announced_is_a_choice():
    whole = replace(SPEAKER, published=PUBLISHED)

    assert whole.announced == (*NODE.pod_cidrs, *PUBLISHED)
    assert replace(whole, bgp=bgp(announce=("published",))).announced == PUBLISHED
    assert replace(whole, bgp=bgp(announce=("pods",))).announced == NODE.pod_cidrs


def test_services_are_told_and_never_learnt_with_the_fabric():
    text = render(SPEAKERS["Services"])

    assert block(text, "protocol static own4") == ["ipv4;", "route 10.96.0.10/32 unreachable;"]
    assert block(text, "protocol static own6") == ["ipv6;", "route fd00:96::10/128 unreachable;"]
    found = block(text, f"filter from_{PEER.name}")
    assert found.index("if net ~ [ 10.96.0.0/16+ ] then reject;") < found.index("accept;")


def test_a_peer_gets_all_that_the_settings_say_of_it():
    text = render(SPEAKERS["all of a peer"])
    found = block(text, f"protocol bgp {PEER.name}")

    assert {'password "geheim";', "bfd on;", "multihop 3;", "hold time 90;"} <= set(found)
    assert "protocol bfd { }" in text
    out = block(text, f"filter to_{PEER.name}")
    assert {"bgp_community.add((1, 2));", "bgp_large_community.add((3, 4, 5));"} <= set(out)


def test_the_source_is_the_vtep_where_the_ip_version_is_the_same():
    text = render(SPEAKERS["IPv6 underlay"])

    assert "local fd00::9 as 64512;" in block(text, f"protocol bgp {IPV6.name}")
    assert "local as 64512;" in block(text, f"protocol bgp {PEER.name}")


def test_a_router_id_is_there_without_an_ipv4_address():
    assert SPEAKER.router_id == IPv4Address("198.18.0.1")
    assert int(SPEAKERS["IPv6 underlay"].router_id) > 0
    assert replace(SPEAKER, bgp=bgp(router_id=IPv4Address("9.9.9.9"))).router_id == IPv4Address(
        "9.9.9.9"
    )


def test_own_routes_that_come_back_from_a_router_are_let_in_only_to_learn():
    own = "allow local as 1;"

    assert own not in block(render(SPEAKER), f"protocol bgp {PEER.name}")
    assert own in block(render(SPEAKERS["learns pods"]), f"protocol bgp {PEER.name}")
