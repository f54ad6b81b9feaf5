# SPDX-License-Identifier: Apache-2.0
"""The object cache: what is compiled, what is reused, what is said when nothing can be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loader import clang
from loader.compile import OBJECTS, SOURCES, compile_programs, source_digest
from loader.errors import CompileError
from loader.objects import Objects

SOURCE = """
#include "lib/shared.h"

__attribute__((section("tc"))) int {name}(void *ctx)
{{
	return ctx ? ANSWER : 1;
}}
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    directory = tmp_path / "sources"
    (directory / "lib").mkdir(parents=True)
    (directory / "lib/shared.h").write_text("#define ANSWER 0\n")
    for name in OBJECTS:
        (directory / f"{name}.c").write_text(SOURCE.format(name=name))
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that have been compiled."""
    names: list[str] = []
    compile_file = clang.compile_file

    def counting(source: Path, output: Path, *, clang: clang.Clang) -> None:
        names.append(source.name)
        compile_file(source, output, clang=clang)

    monkeypatch.setattr(clang, "compile_file", counting)
    return names


@pytest.fixture
def no_clang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    return lambda: monkeypatch.setenv("PATH", str(tmp_path))


def test_project_sources_compile_without_warnings(cache: Path) -> None:
    objects = compile_programs(cache)

    assert SOURCES.is_dir()
    assert all(objects.path(program).is_file() for program in OBJECTS)


def test_second_call_compiles_nothing(sources: Path, cache: Path, compiled: list[str]) -> None:
    first = compile_programs(cache, sources=sources)
    compiled.clear()

    second = compile_programs(cache, sources=sources)

    assert second == first
    assert compiled == []


def test_changed_header_compiles_everything_again(
    sources: Path, cache: Path, compiled: list[str]
) -> None:
    first = compile_programs(cache, sources=sources)
    compiled.clear()
    (sources / "lib/shared.h").write_text("#define ANSWER 2\n")

    second = compile_programs(cache, sources=sources)

    assert second.digest != first.digest
    assert sorted(compiled) == sorted(f"{name}.c" for name in OBJECTS)
    assert first.path("to_overlay").exists()


def test_other_files_do_not_change_the_digest(sources: Path) -> None:
    before = source_digest(sources)
    (sources / "README.md").write_text("words")

    assert source_digest(sources) == before


def test_an_object_has_the_same_bytes_wherever_it_is_compiled(tmp_path: Path) -> None:
    objects = []
    for place in (tmp_path / "one", tmp_path / "another" / "place"):
        shutil.copytree(SOURCES, place / "bpf")
        objects.append(compile_programs(place / "cache", sources=place / "bpf"))

    for program in OBJECTS:
        first, second = (one.path(program).read_bytes() for one in objects)
        assert first == second, program
        assert bytes(tmp_path) not in first


def test_moved_file_changes_the_digest(sources: Path) -> None:
    before = source_digest(sources)
    (sources / "lib/shared.h").rename(sources / "lib/other.h")

    assert source_digest(sources) != before


def test_another_compiler_makes_another_object(
    sources: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile_programs(cache, sources=sources)
    found = clang.find_clang()
    newer = clang.Clang(found.path, "newer" * 4, found.asm)
    monkeypatch.setattr(clang, "find_clang", lambda: newer)

    second = compile_programs(cache, sources=sources)

    assert second.directory != first.directory


def test_damaged_cache_entry_is_replaced(sources: Path, cache: Path) -> None:
    objects = compile_programs(cache, sources=sources)
    good = objects.path("to_overlay").read_bytes()
    objects.path("to_overlay").write_bytes(good[:100])

    again = compile_programs(cache, sources=sources)

    assert again == objects
    assert objects.path("to_overlay").read_bytes() == good
    assert [entry.name for entry in cache.iterdir()] == [objects.directory.name]


def test_entry_that_another_process_built_meanwhile_is_used(
    sources: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_all = clang.compile_all

    def slow(*arguments: object) -> None:
        monkeypatch.setattr(clang, "compile_all", compile_all)
        compile_programs(cache, sources=sources)
        compile_all(*arguments)

    monkeypatch.setattr(clang, "compile_all", slow)

    objects = compile_programs(cache, sources=sources)

    assert [entry.name for entry in cache.iterdir()] == [objects.directory.name]


def test_failed_compilation_shows_the_compiler_and_leaves_nothing(
    sources: Path, cache: Path
) -> None:
    (sources / "to_overlay.c").write_text("this is no C;\n")

    with pytest.raises(CompileError, match=r"cannot compile .*to_overlay\.c") as error:
        compile_programs(cache, sources=sources)

    assert "to_overlay.c:1:1: error:" in error.value.details
    assert list(cache.iterdir()) == []


def test_warning_is_an_error(sources: Path, cache: Path) -> None:
    with (sources / "to_overlay.c").open("a") as source:
        source.write("static int unused(void) { return 0; }\n")

    with pytest.raises(CompileError, match="cannot compile"):
        compile_programs(cache, sources=sources)


def test_without_clang_a_cached_object_of_the_same_sources_serves(
    sources: Path, cache: Path, no_clang: Callable[[], None]
) -> None:
    first = compile_programs(cache, sources=sources)
    no_clang()

    assert compile_programs(cache, sources=sources) == first


def test_without_clang_prebuilt_objects_serve(
    sources: Path, cache: Path, tmp_path: Path, no_clang: Callable[[], None]
) -> None:
    built = compile_programs(tmp_path / "elsewhere", sources=sources)
    prebuilt = tmp_path / "prebuilt"
    shutil.copytree(built.directory, prebuilt)
    no_clang()

    objects = compile_programs(cache, sources=sources, prebuilt=prebuilt)

    assert objects.directory == prebuilt
    assert objects.digest.split("-")[0] == built.digest.split("-")[0]


def test_prebuilt_objects_of_other_sources_are_refused(
    sources: Path, cache: Path, tmp_path: Path, no_clang: Callable[[], None]
) -> None:
    built = compile_programs(tmp_path / "elsewhere", sources=sources)
    (sources / "lib/shared.h").write_text("#define ANSWER 2\n")
    no_clang()

    with pytest.raises(CompileError, match="does not hold objects of these sources"):
        compile_programs(cache, sources=sources, prebuilt=built.directory)


def test_without_clang_and_objects_the_error_says_what_to_install(
    sources: Path, cache: Path, no_clang: Callable[[], None]
) -> None:
    no_clang()

    with pytest.raises(CompileError, match="no clang on PATH") as error:
        compile_programs(cache, sources=sources)

    assert error.value.hint == "apt install clang"
    assert not cache.exists()


def test_missing_headers_are_named_with_their_packages(
    sources: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clang, "INCLUDE", tmp_path)

    with pytest.raises(CompileError, match=r"bpf/bpf_helpers\.h") as error:
        compile_programs(cache, sources=sources)

    assert error.value.hint == "apt install linux-libc-dev libbpf-dev"
    assert "asm/types.h" in error.value.message


def test_newest_versioned_clang_is_found_when_plain_clang_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clang-9", "clang-14", "clang-format", "clang-cpp-18"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'absent'}")

    assert clang.find_clang().path == str(tmp_path / "clang-14")


def test_cache_is_for_its_owner_only(sources: Path, cache: Path) -> None:
    compile_programs(cache, sources=sources)

    assert cache.stat().st_mode & 0o777 == 0o700


def test_cache_that_others_may_write_to_is_refused(sources: Path, cache: Path) -> None:
    compile_programs(cache, sources=sources)
    cache.chmod(0o777)

    with pytest.raises(CompileError, match="others may write") as error:
        compile_programs(cache, sources=sources)

    assert "chmod 700" in error.value.hint


def test_cache_that_cannot_be_made_is_an_error(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CompileError, match="cannot make the object cache"):
        compile_programs(tmp_path / "file/cache", sources=sources)


def test_directory_without_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no C sources"):
        compile_programs(tmp_path / "cache", sources=tmp_path)


def test_object_file_is_named_after_its_program() -> None:
    objects = Objects(Path("/cache/one"), "one")

    assert objects.path("to_overlay") == Path("/cache/one/to_overlay.o")
