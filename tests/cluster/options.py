# SPDX-License-Identifier: Apache-2.0
"""Options of the commands: which cluster, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from cluster import containerd, life, recipe
from cluster.layout import KUBE_PROXY_MODES, Cluster
from pycni.settings import ENCAPS

Option = Callable[..., Any]

name_option: Option = click.option(
    "--name", default="k8s", show_default=True, help="Name of the cluster."
)
nodes_option: Option = click.option("--nodes", type=int, default=2, show_default=True)
kube_proxy_option: Option = click.option(
    "--kube-proxy",
    type=click.Choice(KUBE_PROXY_MODES),
    default="nftables",
    show_default=True,
    help="How Services are made.",
)
kubernetes_option: Option = click.option(
    "--kubernetes", default=recipe.KUBERNETES, show_default=True, help="Its version."
)
containerd_option: Option = click.option(
    "--containerd", "containerd_version", default="", metavar="2.X.Y",
    help=f"Its version, such as {containerd.EXAMPLE}; without the option, Debian's.",
)  # fmt: skip
encap_option: Option = click.option(
    "--encap",
    type=click.Choice(ENCAPS),
    help="How packets travel between nodes; without the option, as the release has it.",
)


def cluster_options(name: str) -> Option:
    """A cluster's name, `name` by default, and what it is made of; the command gets a Cluster."""

    def decorate(command: Callable[..., None]) -> Option:
        @wraps(command)
        def called(
            *, name: str, nodes: int, kube_proxy: str, kubernetes: str, containerd_version: str,
            encap: str | None, **others: Any,
        ) -> None:  # fmt: skip
            base = life.base()
            made = Cluster(
                name, nodes, kube_proxy, kubernetes, base, containerd_version, encap or ""
            )
            command(made, **others)

        naming = click.option(
            "--name", default=name, show_default=True, help="Name of the cluster."
        )
        options = (
            naming, nodes_option, kube_proxy_option, kubernetes_option, containerd_option,
            encap_option,
        )  # fmt: skip
        decorated: Option = called
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
