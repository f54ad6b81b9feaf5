# SPDX-License-Identifier: Apache-2.0
"""The schemas of deploy/kubernetes/crds.yaml, and whether an object fits. CEL is not evaluated."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
FREE = ("$.metadata",)
"""What the API server has its own schema for."""


def documents(file: str) -> list[dict[str, Any]]:
    """All of a manifest."""
    return list(yaml.safe_load_all((DEPLOY / file).read_text()))


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """By the path of the collection."""
    found = {}
    for crd in documents("crds.yaml"):
        spec = crd["spec"]
        for version in spec["versions"]:
            path = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
            found[path] = version["schema"]["openAPIV3Schema"]
    return found


def problem(collection: str, document: dict[str, Any]) -> str:
    """What about an object does not fit its schema; empty if all does, or there is none."""
    schema = schemas().get(collection)
    return "" if schema is None else next(_problems(schema, document, "$"), "")


def _problems(schema: dict[str, Any], value: Any, where: str) -> Any:
    if where in FREE:
        return
    if not isinstance(value, TYPES[schema["type"]]):
        yield f"{where} is no {schema['type']}"
        return
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where} has no {name}"
        for name, part in value.items():
            if name not in known and "additionalProperties" in schema:
                yield from _problems(schema["additionalProperties"], part, f"{where}.{name}")
            elif name not in known:
                yield f"{where}.{name} is not in the schema"
            else:
                yield from _problems(known[name], part, f"{where}.{name}")
    elif isinstance(value, list):
        yield from _bounds(schema, len(value), "Items", where)
        for number, part in enumerate(value):
            yield from _problems(schema["items"], part, f"{where}[{number}]")
    elif isinstance(value, str):
        yield from _bounds(schema, len(value), "Length", where)
        if value not in schema.get("enum", (value,)):
            yield f"{where} is {value}"
    else:
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{where} is {value}"


def _bounds(schema: dict[str, Any], size: int, what: str, where: str) -> Any:
    if not schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size):
        yield f"{where} has {size} {what.lower()}"
