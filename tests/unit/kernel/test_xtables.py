# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/xtables.py: tables of iptables-legacy that cannot be read."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from pycni.errors import SetupError
from pycni.kernel import xtables

LOOKS: list[Any] = [lambda: xtables.tables(4), lambda: xtables.has_chain(4, "filter", "OURS")]


@pytest.mark.parametrize("look", LOOKS, ids=["tables", "has_chain"])
def test_a_kernel_that_does_not_give_them_is_told(
    monkeypatch: pytest.MonkeyPatch, look: Any
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(xtables, "_made", lambda _: ["filter"])
    monkeypatch.setattr(xtables, "_ask", refuse)

    with pytest.raises(SetupError, match="iptables-legacy: not permitted"):
        look()
