# SPDX-License-Identifier: Apache-2.0
"""`pycni install` and `uninstall`: where to, what they say, and what they leave alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pycni.cli import cli
from pycni.cli import install as command
from pycni.cli.invocation import Invocation
from pycni.cni.launcher import launcher
from pycni.errors import FileError, PycniError
from pycni.settings import load
from pycni.setup import install, pod_mtu, runtimes, units
from pycni.setup.runtimes import Found, Runtime
from pycni.upkeep import installed

NODE = {
    "name": "n1",
    "node_id": 1,
    "vtep": "192.0.2.1",
    "pod_cidrs": ["10.244.0.0/24"],
    "cluster_cidrs": ["10.244.0.0/16"],
    "uplink": "eth0",
    "mtu": 1450,
    "port": 4789,
}

Call = Callable[..., Result]


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime("containerd", tmp_path / "bin", tmp_path / "net.d", "/etc/config.toml")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "pycni.toml"
    file.write_text(f"state_dir = '{tmp_path}/state'\nrun_dir = '{tmp_path}/run'\nmtu = 1400\n")
    return file


@pytest.fixture
def call(tmp_path: Path, settings: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`pycni` on a host whose runtime has its directories in tmp_path."""
    monkeypatch.setattr(runtimes, "find", lambda: Found(runtime))
    monkeypatch.setattr(units, "HIDDEN", ())
    monkeypatch.setattr(command, "UNIT_DIR", tmp_path / "units")

    def run(*arguments: str) -> Result:
        line = ("--config", str(settings), *arguments)
        if arguments[0] == "uninstall":
            line = (*line, "--unit-dir", str(tmp_path / "units"))
        return CliRunner().invoke(cli, line, obj=Invocation())

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_runtimes_directories_are_used_and_said(call: Call, runtime: Runtime) -> None:
    done = call("install")

    assert done.exit_code == 0, done.output
    assert (runtime.bin_dir / install.PLUGIN).exists()
    assert (runtime.conf_dir / install.CONFLIST).exists()
    assert f"containerd looks for plugins in {runtime.bin_dir}" in done.stderr
    assert "(/etc/config.toml)" in done.stderr
    assert "warning" not in done.stderr


def test_install_says_what_it_wrote_and_uninstall_what_it_removed(
    call: Call, runtime: Runtime
) -> None:
    written = document(call("install", "-o", "json"))["written"]
    there = [Path(file).exists() for file in written]
    removed = document(call("uninstall", "-o", "json"))

    assert all(there)
    assert str(runtime.bin_dir / install.PLUGIN) in written
    assert sorted(removed["removed"]) == sorted(written)
    assert not any(Path(file).exists() for file in written)


@pytest.mark.parametrize(
    ("options", "is_node", "told"),
    [((), False, True), (("--only", "list"), False, True), (("--only", "plugin"), False, False),
     ((), True, False)],
)  # fmt: skip
def test_a_list_on_a_host_that_is_not_set_up_is_told(
    call: Call, tmp_path: Path, options: tuple[str, ...], is_node: bool, told: bool
) -> None:
    if is_node:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        (state / "node.json").write_text(json.dumps(NODE))

    done = call("install", *options)

    assert done.exit_code == 0, done.output
    assert ("not set up yet" in done.stderr) is told


def test_plugin_and_list_can_be_written_one_after_the_other(call: Call, runtime: Runtime) -> None:
    plugin, listed = runtime.bin_dir / install.PLUGIN, runtime.conf_dir / install.CONFLIST

    first = document(call("install", "--only", "plugin", "-o", "json"))
    assert str(plugin) in first["written"]
    assert str(listed) not in first["written"]
    assert plugin.exists()
    assert not listed.exists()
    before = plugin.stat().st_ino

    second = document(call("install", "--only", "list", "-o", "json"))
    assert second["written"] == [str(listed)]
    assert second["unchanged"] == []
    assert listed.exists()
    assert plugin.stat().st_ino == before

    third = document(call("install", "--only", "list", "-o", "json"))
    assert (third["written"], third["unchanged"]) == ([], [str(listed)])


def test_the_list_alone_needs_no_plugin_to_be_there(call: Call, runtime: Runtime) -> None:
    call("install", "--only", "list")

    assert (runtime.conf_dir / install.CONFLIST).exists()
    assert not (runtime.bin_dir / install.PLUGIN).exists()


def agent_that_serves(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Have `pycni agent` run `before`, serve, and end."""

    def run(read: Any, *, setup: bool, served: Any) -> None:
        assert setup is False
        before()
        served(read())

    monkeypatch.setattr("pycni.agent.agent.run", run)
    monkeypatch.setattr("pycni.cli.privilege.require", lambda *_: None)


def test_an_agent_writes_the_list_when_it_serves_and_not_before(
    call: Call, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = runtime.conf_dir / install.CONFLIST
    there: list[bool] = []
    agent_that_serves(monkeypatch, lambda: there.append(listed.exists()))

    assert call("agent", "--no-setup").exit_code == 0
    assert not listed.exists()
    done = call("agent", "--no-setup", "--install-list")
    assert done.exit_code == 0, done.output
    assert there == [False, False]
    assert listed.exists()
    assert f"wrote {listed}" in done.stderr

    again = call("agent", "--no-setup", "--install-list")
    assert "wrote" not in again.stderr


def held(settings: Path) -> dict[str, bytes]:
    """The copies that an agent keeps, by the names of the files."""
    directory = installed.record_path(load(settings)).parent
    return {
        path.name: path.read_bytes() for path in directory.glob("*") if path.name != "files.json"
    }


def test_an_agent_that_writes_the_list_holds_it_and_the_plugin(
    call: Call, runtime: Runtime, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    call("agent", "--no-setup")
    assert held(settings) == {}
    call("install", "--only", "plugin")
    plugin = runtime.bin_dir / install.PLUGIN

    call("agent", "--no-setup", "--install-list")

    files = (plugin, runtime.bin_dir / install.PATHS, runtime.conf_dir / install.CONFLIST)
    assert held(settings) == {path.name: path.read_bytes() for path in files}
    record = installed.load(load(settings))
    assert record is not None
    assert record.executable.path == plugin
    assert record.listed.path == files[-1]


def test_an_agent_holds_the_plugin_that_is_missing_as_it_would_be(
    call: Call, runtime: Runtime, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)

    call("agent", "--no-setup", "--install-list")

    assert not (runtime.bin_dir / install.PLUGIN).exists()
    assert held(settings)[install.PLUGIN] == launcher()


def test_an_install_beside_such_an_agent_gives_it_the_new_files_to_hold(
    call: Call, runtime: Runtime, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    call("install", "--no-python")
    call("agent", "--no-setup", "--install-list")
    before = held(settings)

    call("install", "--mtu", "1300")

    paths = runtime.bin_dir / install.PATHS
    assert held(settings)[install.PATHS] == paths.read_bytes() != before[install.PATHS]
    assert b"1300" in held(settings)[install.CONFLIST]


def test_an_uninstall_ends_the_holding_of_what_it_removes_and_of_nothing_else(
    call: Call, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    call("agent", "--no-setup", "--install-list")
    elsewhere = ("--bin-dir", str(tmp_path / "a"), "--conf-dir", str(tmp_path / "b"))
    call("install", *elsewhere)

    call("uninstall", *elsewhere)
    assert held(settings)
    call("uninstall")
    assert held(settings) == {}


def test_an_agent_warns_of_a_list_that_the_runtime_uses_instead(
    call: Call, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    runtime.conf_dir.mkdir()
    other = runtime.conf_dir / "05-other.conflist"
    other.write_text('{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp"}]}')

    done = call("agent", "--no-setup", "--install-list")

    assert done.exit_code == 0, done.output
    assert "warning" in done.stderr
    assert other.name in done.stderr


def test_an_agent_that_cannot_write_the_list_ends(
    call: Call, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    runtime.conf_dir.write_text("a file where the directory should be")

    done = call("agent", "--no-setup", "--install-list")

    assert isinstance(done.exception, FileError)
    assert str(runtime.conf_dir) in done.exception.message


def test_a_list_with_an_mtu_that_is_too_large_is_refused_by_the_agent(
    call: Call, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_that_serves(monkeypatch, lambda: None)
    call("install", "--only", "list")
    listed = runtime.conf_dir / install.CONFLIST
    changed = json.loads(listed.read_text())
    changed["plugins"][0]["mtu"] = 9000
    listed.write_text(json.dumps(changed))

    done = call("agent", "--no-setup", "--install-list")

    assert isinstance(done.exception, PycniError)
    assert f"change the list {listed}" in done.exception.hint


@pytest.mark.parametrize(("options", "python"), [((), sys.executable), (("--no-python",), "")])
def test_the_plugin_is_told_of_this_python_or_of_none(
    call: Call, runtime: Runtime, settings: Path, options: tuple[str, ...], python: str
) -> None:
    document(call("install", "-o", "json", *options))

    lines = (runtime.bin_dir / install.PATHS).read_text().splitlines()
    assert f"python={python}" in lines
    assert f"settings={settings}" in lines


def test_uninstall_of_nothing_says_where_it_looked(
    call: Call, runtime: Runtime, tmp_path: Path
) -> None:
    where = f"{runtime.bin_dir}, {runtime.conf_dir} or {tmp_path / 'units'}"

    assert call("uninstall").stdout == f"nothing that `pycni install` wrote is in {where}\n"


def test_uninstall_says_what_stays_and_why(call: Call, settings: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    listed = Path(document(call("install", "-o", "json"))["written"][-1])
    edited = json.loads(listed.read_text())
    edited["plugins"].append({"type": "bandwidth"})
    listed.write_text(json.dumps(edited))

    done = document(call("uninstall", "-o", "json"))
    assert done["removed"] == []
    assert "it uses the plugin" in done["stays"][str(listed)]
    assert done["stays"][str(listed.parents[1] / "bin" / install.PLUGIN)] == (
        "a list that stays uses it"
    )

    listed.unlink()
    stays = document(call("uninstall", "-o", "json"))["stays"]
    assert stays[str(settings)] == "your settings"
    assert "pycni teardown" in stays[str(tmp_path / "state")]


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_dry_run_changes_nothing(call: Call, tmp_path: Path, verb: str) -> None:
    if verb == "uninstall":
        call("install", "--systemd", "--unit-dir", str(tmp_path / "units"))
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}

    done = call(verb, "--dry-run")

    assert done.exit_code == 0, done.output
    assert "10-pycni.conflist" in done.stdout
    assert done.stdout.startswith("would ")
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("way", [("--dry-run",), ()])
@pytest.mark.parametrize("option", ["--bin-dir", "--conf-dir", "--unit-dir"])
def test_a_directory_that_is_none_is_refused_also_by_a_dry_run(
    call: Call, tmp_path: Path, option: str, way: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))

    done = call("install", "--systemd", option, str(tmp_path / "file" / "x"), *way)

    assert isinstance(done.exception, FileError)
    assert f"{tmp_path}/file is no directory" in done.exception.message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_removal_that_cannot_be_is_refused_by_a_dry_run(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("install")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    done = call("uninstall", "--dry-run")

    assert isinstance(done.exception, FileError)
    assert "may not write to" in done.exception.message


def test_a_list_that_is_there_stays_and_is_said(call: Call, runtime: Runtime) -> None:
    call("install")
    listed = runtime.conf_dir / install.CONFLIST
    text = listed.read_text().replace('"ipMasq": true', '"ipMasq": false')
    listed.write_text(text)

    again = call("install")
    assert f"the list {listed} is there and stays as it is" in again.stdout
    assert listed.read_text() == text

    changed = call("install", "--ip-masq")
    assert f"a copy of {listed} as it was: {listed}.bak" in changed.stdout
    assert '"ipMasq": true' in listed.read_text()


def test_other_directories_than_the_runtimes_are_warned_of(call: Call, tmp_path: Path) -> None:
    done = call("install", "--bin-dir", str(tmp_path / "else"))

    assert done.exit_code == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert f"looks for plugins in {tmp_path}/bin, not in {tmp_path}/else" in warning


def test_a_runtime_that_wants_another_network_is_warned_of(
    call: Call, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    crio = Runtime("CRI-O", runtime.bin_dir, runtime.conf_dir, "crio.conf", network="blue")
    monkeypatch.setattr(runtimes, "find", lambda: Found(crio, doubts=("x is not TOML",)))

    warnings = document(call("install", "-o", "json"))["warnings"]

    assert [text.split(":")[0] for text in warnings] == [
        "x is not TOML",
        "CRI-O uses only the network blue",
    ]
    assert document(call("install", "--name", "blue", "-o", "json"))["warnings"] == warnings[:1]


def test_lists_of_others_are_warned_of(call: Call, runtime: Runtime) -> None:
    runtime.conf_dir.mkdir()
    (runtime.conf_dir / "05-first.conf").write_text('{"ipam": {"subnet": "10.244.7.0/24"}}')

    warnings = document(call("install", "-o", "json"))["warnings"]

    assert ["sorts before" in warnings[0], "overlaps" in warnings[1]] == [True, True]


@pytest.mark.parametrize("mtu", ["9000", "1401", "1279"])
def test_an_mtu_that_the_settings_rule_out_is_refused(call: Call, tmp_path: Path, mtu: str) -> None:
    refused = call("install", "--mtu", mtu)

    assert refused.exit_code == 1
    assert f"MTU of {mtu}" in str(refused.exception)
    assert not (tmp_path / "bin").exists()
    assert call("install", "--mtu", "1400").exit_code == 0


def test_an_mtu_that_the_node_rules_out_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "node.json").write_text(json.dumps(NODE))

    refused = call("install", "--mtu", "9000")

    assert refused.exit_code == 1
    assert "change --mtu" in refused.exception.hint
    assert "from 68 to 1450" in refused.exception.details


def test_an_mtu_in_a_list_that_is_there_is_checked_too(call: Call, runtime: Runtime) -> None:
    call("install")
    listed = runtime.conf_dir / install.CONFLIST
    listed.write_text(listed.read_text().replace('"ipMasq"', '"mtu": 9000, "ipMasq"'))

    refused = call("install")

    assert refused.exit_code == 1
    assert str(listed) in refused.exception.hint


def test_before_setup_the_uplink_says_what_fits(
    call: Call, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(settings.read_text().replace("mtu = 1400\n", ""))
    uplink = type("Uplink", (), {"ifname": "eth0", "mtu": 1500, "vtep": ip_address("192.0.2.1")})
    monkeypatch.setattr(pod_mtu.uplink, "find", lambda *_, **__: uplink)

    refused = call("install", "--mtu", "1451")

    assert refused.exit_code == 1
    assert "to 1450, what the uplink eth0 leaves" in refused.exception.details
    assert call("install", "--mtu", "1450").exit_code == 0


def test_install_with_systemd_says_what_comes_next(
    call: Call, settings: Path, tmp_path: Path
) -> None:
    done = call("install", "--systemd", "--unit-dir", str(tmp_path / "units"))

    assert done.exit_code == 0, done.output
    assert "systemctl daemon-reload && systemctl enable --now" in done.output
    assert f"--config {settings}" in (tmp_path / "units" / "pycni-agent.service").read_text()
