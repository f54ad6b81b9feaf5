# SPDX-License-Identifier: Apache-2.0
"""A node that speaks BGP, and what BIRD 2.0.12 answers, recorded."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.bgp.bird import HEAD, Line
from pycni.bgp.config import Speaker
from pycni.bgp.neighbours import Neighbour
from pycni.bgp_settings import Bgp
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord

CIDRS = (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64"))
CLUSTER_CIDRS = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))
VTEP, ROUTER = ip_address("198.18.0.1"), ip_address("198.18.0.254")
NODE = Node("one", 1, VTEP, CIDRS, CLUSTER_CIDRS, "eth0", 1500, 4789)
SETTINGS = Settings(node_name="one")
BGP = Bgp.model_validate({"asn": 64512, "peers": [{"address": str(ROUTER), "asn": 64999}]})
PEER = Neighbour("peer_198_18_0_254", ROUTER, 64999)
RECORD = NodeRecord("one", 1, VTEP, CIDRS)
SPEAKER = Speaker(BGP, NODE, {4: 24, 6: 64}, (PEER,), {})

SESSIONS = """2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     23:46:36.651
1006-
1002-own4       Static     master4    up     23:46:36.651
1006-  Channel ipv4
     State:          UP
1002-b1         BGP        ---        up     23:46:37.649  Established
1006-  BGP state:          Established
     Neighbor address: 198.18.0.2
     Neighbor AS:      64512
   Channel ipv4
     State:          DOWN
   Channel ipv6
     State:          UP
1002-b2         BGP        ---        start  23:46:36.651  Active        Socket: Connection refused
1006-  BGP state:          Active
     Neighbor address: fd00::2
     Neighbor AS:      64999
     Last error:       Socket: Connection refused
   Channel ipv4
     State:          DOWN
0000 """
ROUTES = """1007-Table master4:
 10.244.1.0/24        unreachable [own4 23:46:36.651] * (200)
1008-\tType: static univ
1007-                     unicast [b2 23:46:38.100] (100) [AS64999i]
 \tvia 198.18.0.254 on e1
1008-\tType: BGP univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: 64999 64512
 \tBGP.next_hop: 198.18.0.254
1007-10.244.2.0/24        unicast [b1 23:46:37.649] * (100) [i]
 \tvia 198.18.0.2 on e1
1008-\tType: BGP univ
1012-\tBGP.origin: IGP
 \tBGP.as_path:
 \tBGP.next_hop: 198.18.0.2
 \tBGP.local_pref: 100
 \tBGP.community: (64512,100)
 \tBGP.large_community: (64512, 7079, 2)
1007-
 Table master6:
 fd00:10:244:2::/64   unicast [b1 23:46:37.649] * (100) [i]
1012-\tBGP.next_hop: fd00::2 fe80::2
0000 """


def lines(answer: str) -> list[Line]:
    """An answer as Bird.ask gives it."""
    found: list[Line] = []
    for raw in answer.splitlines():
        head = HEAD.fullmatch(raw.encode())
        found.append(
            Line(int(head[1]), head[3].decode()) if head else Line(found[-1].code, raw[1:])
        )
    return found


def other(number: int) -> NodeRecord:
    """Another node of the store."""
    return replace(
        RECORD,
        name=f"node{number}",
        node_id=number,
        vtep=ip_address(f"198.18.0.{number}"),
        pod_cidrs=(ip_network(f"10.244.{number}.0/24"),),
    )
