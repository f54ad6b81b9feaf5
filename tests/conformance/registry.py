# SPDX-License-Identifier: Apache-2.0
"""The list of cases. A case is a function; its id is stable, its title a sentence that must hold.

@case("D2", "DEL may be repeated")
def repeated(bench): ...

@case("A6", "a bad container ID is refused", over={"slash": "a/b", "dots": "../x"})
def bad_container_id(bench, value): ...       # ids A6[slash], A6[dots]

@case("C1", "...", versions=True, networks=True)
def results(bench, *, version, network): ...  # ids C1[0.4.0 dual], ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.bench import Bench

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Of the CNI specification, oldest first."""

Function = Callable[..., None]


@dataclass(frozen=True)
class Case:
    """One case with one set of parameters."""

    id: str
    title: str
    run: Callable[[Bench], None]


@dataclass(frozen=True)
class _Family:
    id: str
    title: str
    function: Function
    over: Mapping[str, Any]
    versions: tuple[str, ...]
    networks: bool
    profile: str


_families: list[_Family] = []


def case(
    identifier: str,
    title: str,
    *,
    over: Mapping[str, Any] | None = None,
    versions: bool | tuple[str, ...] = False,
    networks: bool = False,
    profile: str = "",
) -> Callable[[Function], Function]:
    """Register a case, once for each member of `over`, `versions` and the subject's networks."""

    def register(function: Function) -> Function:
        wanted = (VERSIONS if versions else ()) if isinstance(versions, bool) else versions
        _families.append(
            _Family(identifier, title, function, over or {}, wanted, networks, profile)
        )
        return function

    return register


def all_cases(networks: tuple[str, ...], *, profile: str) -> Iterator[Case]:
    """The cases for a subject with these networks and this profile, in the order of their ids."""
    chosen = [one for one in _families if one.profile in ("", profile)]
    for family in sorted(chosen, key=lambda one: _order(one.id)):
        yield from _expanded(family, networks)


def _expanded(family: _Family, networks: tuple[str, ...]) -> Iterator[Case]:
    for version in family.versions or (None,):
        for network in networks if family.networks else (None,):
            for label, value in (*family.over.items(),) or ((None, None),):
                named = {"version": version, "network": network}
                keywords = {key: one for key, one in named.items() if one is not None}
                arguments = () if label is None else (value,)
                labels = [one for one in (version, network, label) if one is not None]
                suffix = f"[{' '.join(labels)}]" if labels else ""
                yield Case(
                    family.id + suffix,
                    family.title,
                    _bound(family.function, arguments, keywords),
                )


def _bound(
    function: Function, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Callable[[Bench], None]:
    return lambda bench: function(bench, *arguments, **keywords)


def _order(identifier: str) -> tuple[str, int]:
    letter = identifier.rstrip("0123456789")
    return letter, int(identifier[len(letter) :])
