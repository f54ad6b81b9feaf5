# SPDX-License-Identifier: Apache-2.0
"""`python -m conformance`: run the suite against one plugin or several, print cases and scores."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance import report, sandbox, subject
from conformance.results import Outcome, Score
from conformance.subject import Subject


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the suite makes namespaces: run it as root")
    subjects = [subject.load(path) for path in options.subjects]
    if options.plugin:
        subjects.append(_described(options))
    if not subjects:
        sys.exit("name a subject's file, or --plugin and --conf")
    scores: dict[str, list[Outcome]] = {}
    for one in subjects:
        without = {**one.without, **dict(options.without)}
        scores[one.name] = _run(replace(one, without=without), options)
    if len(scores) > 1:
        report.say(f"passed / failed / skipped\n\n{report.table(scores)}\n")
        report.say(report.differing(scores) + "\n")
    if options.json:
        options.json.write_text(json.dumps(_document(scores), indent=1) + "\n")
    judged = [case for one in subjects if not one.reference for case in scores[one.name]]
    total = Score.of(judged or [case for found in scores.values() for case in found])
    report.say(f"{total.passed} passed, {total.failed} failed")
    sys.exit(1 if total.failed and judged else 0)


def _run(one: Subject, options: argparse.Namespace) -> list[Outcome]:
    report.say(f"== {one.name}: {one.plugin}")
    outcomes, begin = [], time.monotonic()
    for event in sandbox.lines(one, only=options.only):
        if event.pop("kind") == "start":
            networks = ", ".join(
                f"{label} (IPv{', IPv'.join(map(str, families)) or '?'})"
                for label, families in event["networks"].items()
            )
            report.say(f"   versions {', '.join(event['versions'])}; networks {networks}")
        elif event:
            outcomes.append(Outcome(**event))
            report.line(outcomes[-1])
    seconds = time.monotonic() - begin
    report.say(f"== {one.name}: {Score.of(outcomes)} ({seconds:.0f} s)\n")
    return outcomes


def _document(scores: dict[str, list[Outcome]]) -> dict[str, Any]:
    return {
        name: {"score": report.results_seen(found), "cases": [one.to_json() for one in found]}
        for name, found in scores.items()
    }


def _described(options: argparse.Namespace) -> Subject:
    values = {
        "name": options.name or options.plugin.name,
        "plugin": str(options.plugin.resolve()),
        "networks": {path.stem: str(path.resolve()) for path in options.conf},
        "cni_path": options.cni_path.split(":") if options.cni_path else [],
        "setup": [str(options.setup.resolve())] if options.setup else [],
        "profile": options.profile,
    }
    return subject.make(values, here=Path.cwd())


def _pair(text: str) -> tuple[str, str]:
    case, equals, reason = text.partition("=")
    if not (case and equals and reason):
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=REASON")
    return case, reason


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("subjects", nargs="*", type=Path, help="TOML files that describe plugins")
    parser.add_argument("--plugin", type=Path, help="a plugin's executable")
    parser.add_argument(
        "--conf", type=Path, action="append", default=[], help="its configuration; may be repeated"
    )
    parser.add_argument("--cni-path", default="", help="directories of other plugins, with ':'")
    parser.add_argument("--setup", type=Path, help="a program that makes the node ready")
    parser.add_argument("--profile", default="", help="a module of conformance.profiles")
    parser.add_argument("--name", default="", help="what to call it")
    parser.add_argument("--only", default="", help="ids, such as 'D*,C4,A6[slash]'")
    parser.add_argument("--without", metavar="ID=REASON", type=_pair, action="append", default=[],
                        help="a case that does not apply here; may be repeated")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args()
    if options.plugin and not options.conf:
        parser.error("--plugin needs --conf")
    return options


if __name__ == "__main__":
    main()
