# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/runtimes.py: which directories the runtime of a host reads, by its configuration."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pycni.setup import runtimes
from pycni.setup.runtimes import BIN_DIR, CONF_DIR, find

CRI2 = '[plugins."io.containerd.grpc.v1.cri".cni]\n'
CRI3 = '[plugins."io.containerd.cri.v1.runtime".cni]\n'
DEBIAN = f'version = 2\n{CRI2}bin_dir = "/usr/lib/cni"\nconf_dir = "/etc/cni/net.d"\n'

Put = Callable[[str, str], Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def put(root: Path) -> Put:
    def write(name: str, text: str) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Make the socket of a runtime: by a short name, since sockets have short names."""
    with ExitStack() as stack:

        def make(path: Path) -> None:
            (root / path.parent).mkdir(parents=True, exist_ok=True)
            monkeypatch.chdir(root / path.parent)
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.bind(path.name)

        yield make


def test_a_host_without_a_runtime_gets_the_defaults(root: Path) -> None:
    found = find(root)

    assert (found.runtime.bin_dir, found.runtime.conf_dir) == (BIN_DIR, CONF_DIR)
    assert "no configuration" in found.runtime.source
    assert not found.runtime.is_there


@pytest.mark.parametrize(
    "text",
    [
        DEBIAN,
        '[plugins.cri.cni]\nbin_dir = "/usr/lib/cni"\n',
        f'version = 3\n{CRI3}bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]\n',
        f'version = 3\n{CRI3}bin_dir = "/usr/lib/cni"\n',
    ],
    ids=["version 2 of Debian", "version 1", "version 3", "version 3 with the older key"],
)
def test_every_format_of_containerd_is_read(root: Path, put: Put, text: str) -> None:
    file = put("etc/containerd/config.toml", text)

    runtime = find(root).runtime

    assert runtime.name == "containerd"
    assert runtime.bin_dir == Path("/usr/lib/cni")
    assert runtime.conf_dir == CONF_DIR
    assert runtime.source == str(file)


def test_what_containerd_imports_counts_more(root: Path, put: Put) -> None:
    put("etc/containerd/config.toml", f'imports = ["conf.d/*.toml"]\n{DEBIAN}')
    put("etc/containerd/conf.d/10-a.toml", f'version = 2\n{CRI2}bin_dir = "/a"\n')
    last = put("etc/containerd/conf.d/20-b.toml", f'version = 2\n{CRI2}bin_dir = "/b"\n')

    runtime = find(root).runtime

    assert runtime.bin_dir == Path("/b")
    assert runtime.conf_dir == CONF_DIR
    assert str(last) in runtime.source


def test_an_absolute_import_and_one_in_a_circle_are_read_once(root: Path, put: Put) -> None:
    main = root / "etc/containerd/config.toml"
    other = root / "srv/more.toml"
    put("etc/containerd/config.toml", f'imports = ["{other}"]\nversion = 2\n')
    put("srv/more.toml", f'imports = ["{main}"]\nversion = 2\n{CRI2}conf_dir = "/lists"\n')

    assert find(root).runtime.conf_dir == Path("/lists")


@pytest.mark.parametrize("text", ["plugins = 3", "[plugins]\ncri = 'x'", "version = 2",
                                  f"{CRI2}bin_dir = 7", f"{CRI3}bin_dirs = []"])  # fmt: skip
def test_a_configuration_without_directories_means_the_defaults(
    root: Path, put: Put, text: str
) -> None:
    put("etc/containerd/config.toml", text)

    assert find(root).runtime.bin_dir == BIN_DIR


def test_a_configuration_that_is_broken_is_a_doubt(root: Path, put: Put) -> None:
    file = put("etc/containerd/config.toml", "[plugins\n")

    found = find(root)

    assert found.runtime.bin_dir == BIN_DIR
    assert found.doubts[0].startswith(f"{file} is not TOML: ")
    assert "line 1" in found.doubts[0]


def test_an_import_that_is_missing_is_a_doubt(root: Path, put: Put) -> None:
    put("etc/containerd/config.toml", f'imports = ["/nowhere.toml"]\n{DEBIAN}')

    found = find(root)

    assert found.runtime.bin_dir == Path("/usr/lib/cni")
    assert found.doubts == ("/nowhere.toml cannot be read: No such file or directory",)


def test_crio_is_read_with_its_drop_ins_of_which_the_last_counts(root: Path, put: Put) -> None:
    put("etc/crio/crio.conf", '[crio.network]\nplugin_dirs = ["/a"]\nnetwork_dir = "/lists/"\n')
    put("etc/crio/crio.conf.d/10-b.conf", '[crio.network]\nplugin_dirs = ["/b"]\n')
    put("etc/crio/crio.conf.d/20-c.conf", '[crio.network]\ncni_default_network = "other"\n')

    runtime = find(root).runtime

    assert (runtime.name, runtime.bin_dir, runtime.conf_dir) == (
        "CRI-O",
        Path("/b"),
        Path("/lists"),
    )
    assert runtime.network == "other"


def test_the_older_key_of_crio_is_read(root: Path, put: Put) -> None:
    put("etc/crio/crio.conf.d/00-x.conf", '[crio.network]\nplugin_dir = "/old"\n')

    assert find(root).runtime.bin_dir == Path("/old")


def test_of_two_runtimes_the_one_that_runs_goes_first(
    root: Path, put: Put, run: Callable[[Path], None]
) -> None:
    put("etc/containerd/config.toml", DEBIAN)
    put("etc/crio/crio.conf", "[crio]\n")
    run(runtimes.CRIO_SOCKET)

    found = find(root)

    assert (found.runtime.name, found.runtime.running) == ("CRI-O", True)
    assert [other.name for other in found.others] == ["containerd"]


@pytest.mark.parametrize(
    ("path", "name"),
    [(runtimes.CONTAINERD_SOCKET, "containerd"), (runtimes.CRIO_SOCKET, "CRI-O")],
)
def test_a_runtime_that_runs_without_configuration_has_the_defaults(
    root: Path, run: Callable[[Path], None], path: Path, name: str
) -> None:
    run(path)

    runtime = find(root).runtime

    assert (runtime.name, runtime.bin_dir) == (name, BIN_DIR)
    assert "runs without" in runtime.source


def test_a_configuration_that_never_ends_is_a_doubt(root: Path) -> None:
    path = root / runtimes.CONTAINERD
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/zero")

    found = find(root)

    assert found.doubts == (f"{path} cannot be read: it is a device, not a regular file",)
