# SPDX-License-Identifier: Apache-2.0
"""Errors for people and for programs, and their exit statuses."""

from __future__ import annotations

import errno
import json
import os

import click
import pytest

from loader import pins
from loader.errors import VerifierError
from pycni.cli import failure, privilege
from pycni.errors import DelegateError, NotAvailable, StoreError
from pycni.kernel import mounts
from pycni.kernel.netlink import NetlinkError


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


STORE_ERROR = StoreError("the store is away", details="refused", hint="start it")


def test_people_get_what_happened_what_was_found_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failure.report(STORE_ERROR) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "pycni: the store is away\n  found: refused\n  to do: start it\n"


def test_found_is_said_once() -> None:
    told = failure.Failure("mtu is wrong", "found 13", "correct it")

    assert str(told) == "pycni: mtu is wrong\n  found: 13\n  to do: correct it"


def test_programs_get_one_json_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(STORE_ERROR, as_json=True) == 1

    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    assert json.loads(out) == {
        "error": {
            "message": "the store is away",
            "details": "refused",
            "hint": "start it",
            "code": 50,
        }
    }


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (DelegateError(7, "no range"), "no range", 7),
        (VerifierError("refused", details="line 1\nline 2"), "refused", 107),
        (NetlinkError(errno.EBUSY), "the kernel refused a change of the network", 999),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), "[Errno 28] No space left on "
         "device: '/x'", 999),
        (click.Abort(), "cancelled: nothing was changed", 999),
        (click.UsageError("no such thing"), "no such thing", 999),
    ],
)  # fmt: skip
def test_every_expected_error_has_words_and_a_code(
    error: Exception, message: str, code: int
) -> None:
    explained = failure.explain(error)

    assert (explained.message, explained.code) == (message, code)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        failure.report(ZeroDivisionError("a bug"), as_json=True)


def test_details_keep_their_lines_but_no_escape_sequences() -> None:
    text = str(failure.Failure("bad \x1b[2J", details="one\ntwo\x07"))

    assert text == "pycni: bad \\x1b[2J\n  found: one\n    two\\x07"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES])
def test_a_refusal_for_want_of_privilege_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(privilege, "advice", lambda: "run it as root")

    assert failure.explain(NetlinkError(code)).hint == "run it as root"
    assert failure.explain(OSError(code, os.strerror(code))).hint == "run it as root"


def test_wrong_usage_is_2_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    error = click.UsageError("no such thing")

    assert failure.report(error) == 2
    assert "no such thing" in capsys.readouterr().err
    assert failure.report(error, as_json=True) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "no such thing"


def test_an_interrupt_is_130_and_a_declined_question_is_1() -> None:
    interrupted = click.Abort()
    interrupted.__cause__ = KeyboardInterrupt()

    assert failure.report(interrupted) == 130
    assert failure.report(click.Abort()) == 1


def test_an_interrupt_is_the_good_end_of_what_follows() -> None:
    with failure.ended_by_interrupt():
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("pycni -o json status", True),
        ("pycni status --output json", True),
        ("pycni status -ojson", True),
        ("pycni status --output=json", True),
        ("pycni status", False),
        ("pycni -o table status json", False),
        ("pycni lab exec node1 -- pycni -o json status", False),
    ],
)
def test_json_is_wanted_wherever_the_option_stands(arguments: str, wanted: bool) -> None:
    assert failure.wants_json(arguments.split()) is wanted


def test_a_store_that_another_user_cannot_open_may_be_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert failure.explain(STORE_ERROR).hint == "start it; or run it as root: you are user 1000"


def test_a_command_that_sees_other_mounts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "why_hidden", lambda _: "it runs in `ip netns exec blue`")
    monkeypatch.setattr(pins, "needs_bpffs", lambda _: True)

    found = failure.explain(NotAvailable("nothing is loaded"))

    assert found.details == (
        "this command sees other mounts than the node's: it runs in `ip netns exec blue`"
    )
    assert failure.explain(STORE_ERROR).details == "refused"

    monkeypatch.setattr(pins, "needs_bpffs", lambda _: False)  # as in a unit of systemd
    assert failure.explain(NotAvailable("nothing is loaded")).details == ""
