# SPDX-License-Identifier: Apache-2.0
"""In a machine: pods as containerd's sandboxes, and a look at what pycni left.

`PYTHONPATH=/opt/pycni-lab /opt/pycni/bin/python3 guest.py VERB ...`; prints one JSON document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))

SOCKET = Path("/run/containerd/containerd.sock")
CGROUP = "/pycni-lab"
PLUGIN = Path("/usr/lib/cni/pycni")
CONFLIST = Path("/etc/cni/net.d/10-pycni.conflist")
NAMESPACE = "k8s.io"


def main() -> None:
    verb, *arguments = sys.argv[1:]
    print(json.dumps(VERBS[verb](*arguments)))


def image() -> str:
    """Give containerd the image that it makes sandboxes of, under the name that it wants."""
    from runtimes import images
    from runtimes.cri import Cri

    cri = Cri(SOCKET, cgroup_parent=CGROUP)
    cri.version()
    name: str = json.loads(cri._call("Status", verbose=True).info["config"])["sandboxImage"]
    archive = Path("/tmp/pause.tar")
    images.pause_archive(archive, name)
    subprocess.run(["ctr", "-n", NAMESPACE, "images", "import", archive], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    archive.unlink()
    return name


def add(name: str) -> dict[str, Any]:
    """RunPodSandbox: the pod's namespace, addresses and MTU."""
    from runtimes.cri import Cri

    cri = Cri(SOCKET, cgroup_parent=CGROUP)
    config = cri.pod()
    config.metadata.name, config.metadata.uid, config.hostname = name, f"uid-of-{name}", name
    return describe(cri, cri.run(config, timeout=120))


def describe(cri: Any, sandbox: str) -> dict[str, Any]:
    from pyroute2 import IPRoute

    netns = str(cri.netns(sandbox))
    with IPRoute(netns=netns) as ipr:
        (link,) = ipr.get_links(ipr.link_lookup(ifname="eth0")[0])
        mtu = int(link.get("IFLA_MTU"))
    return {"netns": netns, "addresses": cri.addresses(sandbox), "mtu": mtu}


def remove(*names: str) -> list[str]:
    """StopPodSandbox and RemovePodSandbox, of all without names; the sandboxes removed."""
    from runtimes.cri import Cri

    cri = Cri(SOCKET, cgroup_parent=CGROUP)
    gone = [
        one for one in cri._call("ListPodSandbox").items if not names or one.metadata.name in names
    ]
    for one in gone:
        cri.stop(one.id)
        cri.remove(one.id)
    return [one.id for one in gone]


def gc(*keep: str) -> int:
    """The plugin's GC with these container IDs as valid; its exit status."""
    document = json.loads(CONFLIST.read_text())
    plugin = document["plugins"][0] | {
        "name": document["name"],
        "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": [{"containerID": one, "ifname": "eth0"} for one in keep],
    }
    done = subprocess.run(
        [PLUGIN], input=json.dumps(plugin).encode(), stdout=subprocess.DEVNULL, check=False,
        env={"CNI_COMMAND": "GC", "CNI_PATH": str(PLUGIN.parent), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.returncode


def stray(name: str) -> str:
    """An attachment of a namespace that no runtime knows: what a GC is for. Its namespace."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    document = json.loads(CONFLIST.read_text())
    plugin = document["plugins"][0] | {"name": document["name"], "cniVersion": "1.0.0"}
    subprocess.run(
        [PLUGIN], input=json.dumps(plugin).encode(), stdout=subprocess.DEVNULL, check=True,
        env={
            "CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}",
            "CNI_IFNAME": "eth0", "CNI_PATH": str(PLUGIN.parent), "PATH": os.environ["PATH"],
        },
    )  # fmt: skip
    return name


def sandboxes() -> list[str]:
    """The container IDs that containerd knows."""
    from runtimes.cri import Cri

    return Cri(SOCKET, cgroup_parent=CGROUP).sandboxes()


def newer() -> str:
    """Change the installed programs, as a new version of pycni would; the file changed."""
    import loader.compile

    file = loader.compile.SOURCES / "from_container.c"
    file.write_text(file.read_text() + "/* a newer version */\n")
    return str(file)


def masquerades() -> bool:
    """Whether pods get to the world."""
    from pycni.node import masquerade

    return masquerade.exists()


def cut_off() -> bool:
    """Delete the table that masquerades, as somebody's `nft flush ruleset` would."""
    from pycni.node import masquerade

    masquerade.teardown()
    return masquerade.exists()


def parameters() -> dict[str, str]:
    """The kernel parameters that setup changed, with what they were before it."""
    from pycni.node.record import Node
    from pycni.settings import load

    return Node.load(load()).sysctls


def traces(before: str) -> list[str]:
    """What there is of pycni after a teardown; `before` is what `parameters` said."""
    from pyroute2 import IPRoute

    from pycni.kernel import sysctl
    from pycni.names import NAME_HEAD
    from pycni.node import masquerade, overlay
    from pycni.pods import port_table
    from pycni.settings import load

    settings = load()
    found = []
    with IPRoute() as ipr:
        names = [str(link.get("ifname")) for link in ipr.get_links()]
        found += [f"link {one}" for one in names if one.startswith((overlay.DEVICE, NAME_HEAD))]
        qdiscs = [one.get("TCA_KIND") for one in ipr.get_qdiscs()]
        found += [f"qdisc {kind}" for kind in qdiscs if kind == "clsact"]
        found += [
            f"route {cidr}"
            for cidr in settings.cluster_cidrs
            if any(
                route.get("RTA_DST") == str(cidr.network_address)
                for route in ipr.get_routes(family=2 if cidr.version == 4 else 10)
            )
        ]
    if settings.pin_root.exists():
        found.append(f"pins {settings.pin_root}")
    if masquerade.exists() or port_table.exists():
        found.append("nftables")
    for name, value in json.loads(before).items():
        if sysctl.read(name) not in (value, None):
            found.append(f"parameter {name} = {sysctl.read(name)}, was {value}")
    found += [f"file {path}" for path in (PLUGIN, CONFLIST) if path.exists()]
    found += [f"unit {path}" for path in Path("/etc/systemd/system").glob("**/pycni*")]
    return found


VERBS = {
    one.__name__: one
    for one in (
        image,
        add,
        remove,
        gc,
        stray,
        sandboxes,
        newer,
        masquerades,
        cut_off,
        parameters,
        traces,
    )
}

if __name__ == "__main__":
    main()
