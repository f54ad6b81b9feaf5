# SPDX-License-Identifier: Apache-2.0
"""What the first process of a machine mounts."""

from __future__ import annotations

from pathlib import Path

from cluster import init

TABLE = """\
proc /proc proc rw 0 0
tmpfs /run tmpfs rw 0 0
nsfs /run/netns/one nsfs rw 0 0
bpf /run/one/bpf bpf rw 0 0
/dev/vda /runtime ext4 rw 0 0
"""


def test_copies_of_others_mounts_go_the_last_first() -> None:
    assert init.below_run(TABLE) == ["/run/one/bpf", "/run/netns/one"]


def test_what_is_mounted_was_prepared(tmp_path: Path) -> None:
    init.prepare(tmp_path)

    sources = [Path(command[2]) for command in init.mounts(tmp_path) if command[1] == "--bind"]
    assert len(sources) == len(init.OWN) + len(init.PARAMETERS)
    assert all(source.exists() for source in sources)
    assert (tmp_path / "etc").is_dir()
    assert (tmp_path / "etc-work").is_dir()


def test_kubelet_finds_the_parameters_it_wants_and_writes_none(tmp_path: Path) -> None:
    init.prepare(tmp_path)

    over = {command[3]: Path(command[2]).read_text() for command in init.mounts(tmp_path)
            if command[1] == "--bind"
            and command[3].startswith("/proc/sys/")}  # fmt: skip
    assert over["/proc/sys/vm/overcommit_memory"] == "1\n"
    assert over["/proc/sys/kernel/panic_on_oops"] == "1\n"
    assert set(over) == {f"/proc/sys/{name}" for name in init.PARAMETERS}
