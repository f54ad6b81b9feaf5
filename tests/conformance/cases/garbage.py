# SPDX-License-Identifier: Apache-2.0
"""B1 to B8: what comes on stdin when it is no configuration, or none of a known version.

CNI specification 1.1.0, section 5 "Error", codes 1, 5, 6 and 7.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

from conformance import call
from conformance.bench import Bench
from conformance.call import refused
from conformance.registry import case

INCOMPATIBLE, IO, DECODING, INVALID, INTERNAL = 1, 5, 6, 7, 999

NOT_JSON = {
    "empty": b"", "truncated": b"{nope", "array": b"[]", "string": b'"x"', "number": b"5",
    "two documents": b'{"name":"a","cniVersion":"1.0.0"}{}', "rest": b'{"name":"a"} xx',
    "byte order mark": b'\xef\xbb\xbf{"name":"a"}', "NaN": b'{"name":"a","x":NaN}',
    "deep": b"[" * 200_000,
}  # fmt: skip


@case("B1", "what is no JSON object fails with 6", over=NOT_JSON)
def not_json(bench: Bench, stdin: bytes) -> None:
    pod = bench.pod()
    with bench.unchanged(pod):
        refused(bench.attachment(pod).call("ADD", stdin=stdin), DECODING)


BAD_NAMES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "missing": (None, (INVALID,)),
    "empty": ("", (INVALID,)),
    "slash": ("a/b", (INVALID,)),
    "dots": ("..", (INVALID,)),
    "newline": ("a\n", (INVALID,)),
    "number": (5, (DECODING, INVALID)),
}


@case("B2", "a bad network name fails with 7", over=BAD_NAMES)
def bad_name(bench: Bench, what: tuple[Any, tuple[int, ...]]) -> None:
    name, codes = what
    pod = bench.pod()
    attachment = bench.attachment(pod)
    document = {key: one for key, one in attachment.config().items() if key != "name"}
    document |= {} if name is None else {"name": name}
    with bench.unchanged(pod):
        refused(attachment.call("ADD", stdin=json.dumps(document).encode()), *codes)


@case("B3", "stdin that cannot be read fails with 5, a closed one with 5 or 6",
      over={"directory": True, "closed": False})  # fmt: skip
def unreadable(bench: Bench, directory: bool) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod)
    descriptor = os.open("/", os.O_RDONLY)
    try:
        with bench.unchanged(pod):
            answer = call.execute(
                attachment.plugin,
                attachment.env("ADD"),
                descriptor,
                preexec_fn=None if directory else lambda: os.close(0),
            )
            refused(answer, *((IO,) if directory else (IO, DECODING)))
    finally:
        os.close(descriptor)


@case("B4", "a large configuration works", over={"200 KiB": 200 << 10, "3 MiB": 3 << 20})
def large(bench: Bench, size: int) -> None:
    attachment = bench.attachment(bench.pod(), conf={"x-unknown": "x" * size})

    attachment.attach()
    attachment.detach()


@case("B5", "text that is not UTF-8, in a key nobody knows, is ignored or fails with 6")
def not_utf8(bench: Bench) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod)
    stdin = json.dumps(attachment.config({"x-unknown": "MARK"})).encode().replace(b"MARK", b"\xff")
    with bench.unchanged(pod):
        answer = attachment.call("ADD", stdin=stdin)
        if answer.status != 0:
            refused(answer, DECODING)
        else:
            attachment.detach()


@case("B6", "of a key that is there twice, the last counts")
def twice(bench: Bench) -> None:
    pod = bench.pod()
    attachment = bench.attachment(pod)
    text = json.dumps(attachment.config())
    stdin = ('{"cniVersion": "9.9.9", ' + text[1:]).encode()

    answer = attachment.add(stdin=stdin)

    assert call.succeeded(answer).document["cniVersion"] == attachment.version
    attachment.detach()


@case("B7", "no bytes at all on VERSION, and garbage, do not hinder it",
      over={"empty": b"", "garbage": b"{nope", "array": b"[]"})  # fmt: skip
def version_of_garbage(bench: Bench, stdin: bytes) -> None:
    answer = bench.attachment().call("VERSION", stdin=stdin)

    assert call.succeeded(answer).document.get("supportedVersions"), answer.told


BAD_VERSIONS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "9.9.9": ("9.9.9", (INCOMPATIBLE,)),
    "1": ("1", (INCOMPATIBLE,)),
    "1.0": ("1.0", (INCOMPATIBLE,)),
    "abc": ("abc", (INCOMPATIBLE, DECODING)),
    "space": (" 1.0.0", (INCOMPATIBLE, DECODING)),
    "number": (1.0, (DECODING,)),
}


@case("B8", "a version nobody speaks fails with 1, on ADD and on DEL", over=BAD_VERSIONS)
def bad_version(bench: Bench, what: tuple[Any, tuple[int, ...]]) -> None:
    version, codes = what
    pod = bench.pod()
    attachment = bench.attachment(pod)
    with bench.unchanged(pod):
        refused(attachment.call("ADD", conf={"cniVersion": version}), *codes)
        refused(attachment.call("DEL", conf={"cniVersion": version}), *codes)


@case(
    "B9", "a configuration without a version is in the oldest", over={"absent": None, "empty": ""}
)
def no_version(bench: Bench, version: str | None) -> None:
    attachment = bench.attachment(bench.pod())
    document = {key: one for key, one in attachment.config().items() if key != "cniVersion"}
    document |= {} if version is None else {"cniVersion": version}
    stdin = json.dumps(document).encode()

    result = attachment.attach(stdin=stdin)

    assert result.get("cniVersion") in (None, "", "0.1.0", "0.2.0"), result
    assert "ip4" in result or "ip6" in result, f"neither ip4 nor ip6: {result}"
    attachment.detach(stdin=stdin)


@case("B15", "stdin that comes late, in pieces, is read to its end")
def slow_stdin(bench: Bench) -> None:
    attachment = bench.attachment(bench.pod())
    stdin = json.dumps(attachment.config()).encode()
    process = call.start(attachment.plugin, attachment.env("ADD"), subprocess.PIPE)
    assert process.stdin is not None
    for begin in range(0, len(stdin), 100):
        time.sleep(0.01)
        process.stdin.write(stdin[begin : begin + 100])
        process.stdin.flush()
    process.stdin.close()
    process.stdin = None
    stdout, stderr = process.communicate(timeout=call.TIMEOUT)

    answer = call.Answer(process.returncode, stdout, stderr, 0.0)

    attachment.result = call.succeeded(answer).document
    attachment.detach()
