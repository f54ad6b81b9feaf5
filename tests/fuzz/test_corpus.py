# SPDX-License-Identifier: Apache-2.0
"""The inputs that fuzzing by coverage has found (covered.py), in every test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import covered
from fuzz.covered import CORPUS
from fuzz.targets import CLUSTER, TARGETS
from pycni.stores.etcd.keys import decode
from pycni.stores.records import Raw
from pycni.stores.roster import Roster

INPUTS = [(target, path) for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize(("target", "path"), INPUTS, ids=lambda one: getattr(one, "name", one)[:16])
def test_an_input_that_was_found_is_harmless(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


def test_both_programs_name_the_same_targets() -> None:
    assert tuple(TARGETS) == covered.TARGETS


def test_the_corpus_has_good_records_and_bad_ones_of_many_kinds() -> None:
    """A corpus in which nothing is valid would cover little."""
    good, reasons = 0, set()
    for path in (CORPUS / "store").iterdir():
        lines = path.read_bytes().decode(errors="surrogateescape").split("\n")
        pairs = (line.partition(" ") for line in lines)
        roster = Roster(CLUSTER, {name: Raw(decode(text)) for name, _, text in pairs})
        good += len(roster.nodes)
        reasons |= {" ".join(reason.split()[:2]) for reason in roster.rejected.values()}

    assert good >= 5
    assert len(reasons) >= 8
