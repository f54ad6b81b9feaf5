# SPDX-License-Identifier: Apache-2.0
"""What the kernel under test can do, and what a poorer kernel is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loader import libbpf, probe
from loader.errors import KernelError
from support.kernel import needs_root

pytestmark = needs_root


def test_kernel_under_test_has_all_that_is_needed() -> None:
    features = probe.probe()

    probe.require(features)
    assert {f.name for f in features} >= {"redirect_peer", "ringbuf", "tcx", "jit"}
    assert all(f.fallback or f.needed_by for f in features)


def test_missing_helper_is_named_with_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "probe_helper", lambda helper, *_: helper != 155)

    with pytest.raises(KernelError, match="lacks redirect_peer") as error:
        probe.require(probe.probe())

    assert "delivery to pods" in error.value.details


def test_missing_feature_with_a_fallback_is_no_error() -> None:
    features = [replace(f, available=bool(f.needed_by)) for f in probe.probe()]

    probe.require(features)


def test_missing_privilege_is_the_reason_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str, _code: bytes) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(libbpf, "load_instructions", refuse)

    features = {f.name: f for f in probe.probe()}

    assert features["redirect_peer"].reason == "not permitted: run as root"
