# SPDX-License-Identifier: Apache-2.0
"""A: the CNI_* variables, and the environment a plugin inherits.

CNI specification 1.1.0, section 2 "Parameters"; identifiers and interface names, section 1 and
libcni's checks.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from conformance.bench import Bench
from conformance.call import refused, silent
from conformance.registry import case
from conformance.sandbox import SUITE

BAD_ENVIRONMENT = 4

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}


@case("A1", "without CNI_COMMAND it says what it is on stderr, or fails with 4")
def no_command(bench: Bench) -> None:
    answer = bench.attachment().call("", env={"CNI_COMMAND": None})

    if answer.status != 0:
        refused(answer, BAD_ENVIRONMENT)
    else:
        assert not answer.stdout, f"stdout is not empty: {answer.told}"
        assert answer.stderr, "says nothing at all"


@case("A2", "an unknown command fails with 4",
      over={"FROB": "FROB", "lower case": "add", "space": "ADD "})  # fmt: skip
def unknown_command(bench: Bench, command: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod).call(command), BAD_ENVIRONMENT)


def _missing() -> dict[str, tuple[str, tuple[str, ...]]]:
    single = {f"{verb} {name[4:]}": (verb, (name,)) for verb in REQUIRED for name in REQUIRED[verb]}
    return single | {f"{verb} all": (verb, names) for verb, names in REQUIRED.items()}


@case("A3", "missing variables fail with 4, all of them named", over=_missing())
def missing_variables(bench: Bench, what: tuple[str, tuple[str, ...]]) -> None:
    verb, names = what
    pod = bench.pod()
    with bench.unchanged(pod):
        answer = bench.attachment(pod).call(verb, env=dict.fromkeys(names))
        refused(answer, BAD_ENVIRONMENT, mentions=names)


@case("A4", "empty variables count as missing", over=_missing())
def empty_variables(bench: Bench, what: tuple[str, tuple[str, ...]]) -> None:
    verb, names = what
    pod = bench.pod()
    with bench.unchanged(pod):
        answer = bench.attachment(pod).call(verb, env=dict.fromkeys(names, ""))
        refused(answer, BAD_ENVIRONMENT, mentions=names)


@case("A5", "DEL needs no CNI_NETNS", over={"unset": None, "empty": ""})
def delete_without_netns(bench: Bench, netns: str | None) -> None:
    _, attachment = bench.attached()

    silent(attachment.delete(env={"CNI_NETNS": netns}))
    silent(bench.attachment().delete(env={"CNI_NETNS": netns}))


BAD_IDS = {
    "slash": "a/b", "dots": "../x", "dot": ".a", "dash": "-a", "not ASCII": "é", "space": "a b",
    "newline": "abc\n", "colon": "a:b", "underscore": "_a",
}  # fmt: skip


@case("A6", "a container ID with other characters fails with 4", over=BAD_IDS)
def bad_container_id(bench: Bench, identifier: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod, container_id=identifier).call("ADD"), BAD_ENVIRONMENT)


GOOD_IDS = {
    "1": "a", "64": "0123456789abcdef" * 4, "255": "b" * 255, "300": "c" * 300,
    "dots": "a..b", "punctuation": "A_-.9",
}  # fmt: skip


@case("A7", "any other container ID works, however long", over=GOOD_IDS)
def good_container_id(bench: Bench, identifier: str) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod, container_id=identifier)

    attachment.attach()
    attachment.detach()

    assert pod.link() is None, "the interface is still in the pod"


BAD_NAMES: dict[str, str] = {
    "16 bytes": "e" * 16, "8 é": "é" * 8, "dot": ".", "dots": "..", "slash": "a/b",
    "colon": "a:b", "space": "a b", "tab": "a\tb", "no-break space": "a\u00a0b",
}  # fmt: skip


@case("A8", "an interface name the kernel would refuse fails with 4", over=BAD_NAMES)
def bad_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod, ifname=name).call("ADD"), BAD_ENVIRONMENT)


@case(
    "A9",
    "the interface gets exactly the name that was asked for",
    over={"15 bytes": "interface-15-by", "net1": "net1", "dot": "eth0.100", "one": "x"},
)
def good_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod, ifname=name)

    attachment.attach()

    assert pod.its(name).up, f"{name} is down"
    attachment.detach()
    assert pod.link(name) is None, f"{name} is still in the pod"


@case("A10", "ADD as `lo` is refused and the loopback is untouched")
def loopback(bench: Bench) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod, ifname="lo").call("ADD"))


@case("A11", "a name that the kernel would expand is refused", over={"eth%d": "eth%d", "%": "a%b"})
def expanded_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        attachment = bench.attachment(pod, ifname=name)
        answer = attachment.call("ADD")
        if answer.status != 0:
            refused(answer)
        else:
            assert pod.link(name) is not None, f"succeeded, but there is no {name}"
            attachment.detach()


@case("A12", "a name that sysctl reserves is refused", over={"all": "all", "default": "default"})
def reserved_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod, ifname=name).call("ADD"))


@case(
    "A13",
    "an unusual name is taken as it is or refused",
    over={"not ASCII": "étage", "control": "a\x01b", "dash": "-eth0", "quote": "a'b\""},
)
def unusual_name(bench: Bench, name: str) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        attachment = bench.attachment(pod, ifname=name)
        answer = attachment.call("ADD")
        if answer.status != 0:
            refused(answer)
        else:
            assert pod.link(name) is not None, f"succeeded, but there is no {name}"
            silent(attachment.call("DEL"))


@case("A14", "CNI_ARGS that are not KEY=VALUE do not hinder DEL; ADD fails or ignores them")
def malformed_args(bench: Bench) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        answer = bench.attachment(pod).call("ADD", env={"CNI_ARGS": "FOO"})
        if answer.status != 0:
            refused(answer)
    _, attachment = bench.attached()

    silent(attachment.delete(env={"CNI_ARGS": "FOO"}))


ARGS = {
    "first": "IgnoreUnknown=1;FOO=BAR;K8S_POD_NAME=x",
    "last": "FOO=BAR;K8S_POD_NAME=x;IgnoreUnknown=true",
    "equals": "IgnoreUnknown=1;FOO=a=b==",
    "empty": "",
}


@case("A15", "unknown CNI_ARGS are ignored in any order", over=ARGS)
def unknown_args(bench: Bench, args: str) -> None:
    attachment = bench.attachment(bench.pod(), args=args)

    attachment.attach()
    attachment.detach()


@case("A16", "other CNI_ variables and tracing variables are ignored")
def other_variables(bench: Bench) -> None:
    env = {"CNI_FOO": "x", "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    attachment = bench.attachment(bench.pod())

    attachment.attach(env=env)
    attachment.detach(env=env)


POISON = {
    "PYTHONPATH": str(SUITE / "poison"), "PYTHONHOME": "/nonexistent", "PYTHONSTARTUP": "/x",
    "PYTHONOPTIMIZE": "2", "GODEBUG": "x", "LC_ALL": "C", "LANG": "xx_XX", "TMPDIR": "/nonexistent",
    "HOME": "/nonexistent", "XDG_RUNTIME_DIR": "",
}  # fmt: skip


@case("A17", "what else the runtime's environment holds has no effect")
def foreign_environment(bench: Bench) -> None:
    poison = SUITE / "poison"
    poison.mkdir()
    for module in ("json", "socket", "sitecustomize"):
        (poison / f"{module}.py").write_text("raise SystemExit(77)\n")
    attachment = bench.attachment(bench.pod())

    attachment.attach(env=POISON)
    attachment.detach(env=POISON)


def _no_directory() -> None:
    path = SUITE / f"gone-{os.getpid()}"
    path.mkdir()
    os.chdir(path)
    path.rmdir()


def _blocked_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))


INHERITED: dict[str, dict[str, Any]] = {
    "directory gone": {"preexec_fn": _no_directory},
    "umask 0": {"umask": 0},
    "umask 777": {"umask": 0o777},
    "signals blocked": {"preexec_fn": _blocked_signals},
    "no stderr": {"preexec_fn": lambda: os.close(2)},
}


@case("A18", "it works with what a process inherits", over=INHERITED)
def inherited(bench: Bench, popen: dict[str, Any]) -> None:
    attachment = bench.attachment(bench.pod())

    attachment.attach(**popen)
    attachment.detach(**popen)
