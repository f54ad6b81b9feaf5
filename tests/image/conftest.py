# SPDX-License-Identifier: Apache-2.0
"""The image on a host of a lab."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from image import build, host
from image.build import Built
from image.host import Host
from pycni.lab.cluster import Lab
from support import labs


@pytest.fixture(scope="session")
def built() -> Built:
    """The image of this tree."""
    return build.provide()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A host that pycni has not touched, and the empty namespace of a pod."""
    with labs.prepared_lab(nodes=1, pods=1) as lab:
        yield lab
    labs.forget_shared()


@pytest.fixture(scope="session")
def here(built: Built, lab: Lab) -> Iterator[Host]:
    """That host, with containerd and the image."""
    lacking = [name for name in ("containerd", "ctr", "runc") if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"missing: {', '.join(lacking)} (make test-packages)")
    with host.running(lab.layout.nodes[0], built.name, built.archive) as made:
        yield made
