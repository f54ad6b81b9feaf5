# SPDX-License-Identifier: Apache-2.0
"""What the tests boot: Debian's own kernel of the stable release, and a payload of this tree."""

from __future__ import annotations

import pytest

from vm import cache, kernels, payload, root
from vm.kernels import Kernel
from vm.qemu import Disks


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    return kernels.fetch(kernels.TESTED, cache.directory())


@pytest.fixture(scope="session")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Disks:
    return Disks(root.fetch(cache.directory()), payload.build(tmp_path_factory.mktemp("payload")))
