# SPDX-License-Identifier: Apache-2.0
"""The cut of `make test-kernels` that runs with every test: two machines, one kernel.

The programs are compiled here and verified there, by an older verifier; packets between the nodes
go through real network devices.
"""

from __future__ import annotations

import pytest

from vm import scenarios
from vm.kernels import Kernel
from vm.qemu import Disks
from vm.scenarios import Outcome

CUT = ("load", "same-node", "cross-node v4", "cross-node v6")


@pytest.fixture(scope="module")
def outcome(kernel: Kernel, disks: Disks, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    steps = {name: scenarios.STEPS[name] for name in CUT}
    return scenarios.run(kernel, disks, tmp_path_factory.mktemp("guests"), steps)


@pytest.mark.parametrize("name", CUT)
def test_two_machines_with_debians_kernel_pass(outcome: Outcome, name: str) -> None:
    found = {step.name: step for step in outcome.steps}

    assert name in found, f"not reached: {outcome.steps[-1].name}: {outcome.steps[-1].found}"
    assert found[name].passed, found[name].found


def test_what_the_kernel_lacks_has_a_fallback(outcome: Outcome) -> None:
    assert all(feature["fallback"] for feature in outcome.missing)
    assert "tcx" in {feature["name"] for feature in outcome.missing}
