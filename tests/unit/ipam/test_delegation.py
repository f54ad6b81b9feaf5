"""pycni/ipam/delegation.py: what another plugin gave is taken back, sooner or later, once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pycni import locks
from pycni.errors import DelegateError, TryAgain
from pycni.ipam import delegation, delegation_records
from pycni.ipam.delegation_records import Delegation
from pycni.names import AttachmentKey
from pycni.settings import Settings

KEY = AttachmentKey("podnet", "container-one", "eth0")
OTHER = AttachmentKey("podnet", "container-two", "eth0")
STDIN = b'{"name": "podnet", "odd": "\xff"}'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(node_name="node-a", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    delegation_records.setup(made)
    return made


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory for CNI_PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def install(plugins: Path, body: str) -> None:
    """An IPAM plugin that appends its command and CNI_NETNS to `calls`, then does `body`."""
    record = "print(*map(os.environ.get, ('CNI_COMMAND', 'CNI_NETNS')), file=open(path, 'a'))"
    path = plugins / "ipam"
    path.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\npath = {str(plugins / 'calls')!r}\n"
        f"{record}\n{body}\n"
    )
    path.chmod(0o755)


def recorded(plugins: Path, key: AttachmentKey = KEY) -> Delegation:
    env = {"CNI_COMMAND": "ADD", "CNI_NETNS": "/run/netns/one", "CNI_PATH": str(plugins)}
    return Delegation(key, "ipam", env, STDIN)


def calls(plugins: Path) -> list[str]:
    return (plugins / "calls").read_text().splitlines()


def test_orphans_are_released_by_a_del_without_a_namespace(
    settings: Settings, plugins: Path
) -> None:
    install(plugins, "")
    for key in (KEY, OTHER):
        delegation_records.record(settings, recorded(plugins, key))

    assert delegation.release_orphans(settings) == 2

    assert calls(plugins) == ["DEL ", "DEL "]
    assert list(delegation_records.recorded(settings)) == []


def test_an_orphan_that_somebody_works_on_is_passed_over(settings: Settings, plugins: Path) -> None:
    install(plugins, "")
    for key in (KEY, OTHER):
        delegation_records.record(settings, recorded(plugins, key))

    with locks.attachment_lock(settings.run_dir, KEY.digest):
        assert delegation.release_orphans(settings) == 1

    assert [one.key for one in delegation_records.recorded(settings)] == [KEY]


def test_what_has_a_link_is_no_orphan(
    settings: Settings, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plugins, "")
    delegation_records.record(settings, recorded(plugins))
    monkeypatch.setattr("socket.if_nametoindex", {KEY.host_ifname: 7}.__getitem__)

    assert delegation.release_orphans(settings) == 0


def test_a_release_that_fails_is_logged_and_tried_again(
    settings: Settings, plugins: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(plugins, 'print(\'{"code": 7, "msg": "the disk is full"}\'); sys.exit(1)')
    delegation_records.record(settings, recorded(plugins))

    with caplog.at_level(logging.WARNING):
        failed = delegation.release_orphans(settings)
    install(plugins, "")
    released = delegation.release_orphans(settings)

    assert (failed, released) == (0, 1)
    assert "the disk is full" in caplog.text


def test_a_plugin_that_refuses_keeps_the_record(settings: Settings, plugins: Path) -> None:
    install(plugins, 'print(\'{"code": 7, "msg": "no"}\'); sys.exit(1)')
    one = recorded(plugins)
    delegation_records.record(settings, one)

    with (
        locks.attachment_lock(settings.run_dir, KEY.digest) as lock,
        pytest.raises(DelegateError, match="no"),
    ):
        delegation.release(settings, one, env=one.env_of_del, lock=lock)

    assert delegation_records.find(settings, KEY.digest) == one


def test_a_plugin_that_is_gone_says_to_install_it_again(settings: Settings, plugins: Path) -> None:
    one = recorded(plugins)
    delegation_records.record(settings, one)

    with (
        locks.attachment_lock(settings.run_dir, KEY.digest) as lock,
        pytest.raises(TryAgain) as refused,
    ):
        delegation.release(settings, one, env=one.env_of_del, lock=lock)

    assert refused.value.hint == "install the IPAM plugin again"
    assert delegation_records.find(settings, KEY.digest) == one


def test_teardown_keeps_a_directory_with_what_could_not_be_released(
    settings: Settings, plugins: Path
) -> None:
    directory = settings.state_dir / delegation_records.DIRECTORY
    delegation_records.record(settings, recorded(plugins))

    delegation.teardown(settings)
    kept = directory.exists()
    install(plugins, "")
    delegation.teardown(settings)

    assert kept
    assert not directory.exists()


@pytest.mark.parametrize(
    ("plugin", "order"), [("ipam", ["link", "plugin"]), ("dhcp", ["plugin", "link"])]
)
def test_the_link_goes_first_unless_the_plugin_needs_it(plugin: str, order: list[str]) -> None:
    done: list[str] = []

    delegation.in_order(lambda: done.append("link"), lambda: done.append("plugin"), plugin=plugin)

    assert done == order


@pytest.mark.parametrize("plugin", ["ipam", "dhcp"])
def test_the_second_step_is_done_though_the_first_fails(plugin: str) -> None:
    done: list[str] = []

    def fail(what: str) -> None:
        done.append(what)
        raise TryAgain(what)

    with pytest.raises(TryAgain):
        delegation.in_order(lambda: fail("link"), lambda: fail("plugin"), plugin=plugin)

    assert sorted(done) == ["link", "plugin"]
