# SPDX-License-Identifier: Apache-2.0
"""units.py and deploy/systemd: what is written, refused and removed; what systemd says."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.errors import FileError, InvalidSettings
from pycni.settings import Settings
from pycni.setup import units
from pycni.setup.units import (
    BIRD_UNIT,
    UNITS,
    install,
    plan,
    render,
    uninstall,
)

PYTHON = Path("/opt/pycni/bin/python3")
SETUP, AGENT = UNITS
FOREIGN = "[Service]\nExecStart=/bin/true\n"

BGP = {"asn": 64512, "peers": [{"address": "192.0.2.1", "asn": 64999}]}
EXPOSURE_MAX = {SETUP: 2.5, AGENT: 2.7, BIRD_UNIT: 2.6}
"""As `systemd-analyze security` of systemd 252 scores it; each point is explained in deploy/."""


def put(unit_dir: Path, settings: Settings | None = None, **options) -> list[Path]:
    options = {"config": None, "python": PYTHON} | options
    return install(plan(unit_dir, settings or Settings(), **options))


def analyze(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("missing: systemd-analyze (apt install systemd)")
    return subprocess.run(
        [tool, *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_finds_both_units(tmp_path):
    written = put(tmp_path / "system")

    assert written == [tmp_path / "system" / SETUP, tmp_path / "system" / AGENT]
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o644, 0o644]
    assert sorted(path.name for path in (tmp_path / "system").iterdir()) == sorted(UNITS)


def test_birds_unit_is_there_where_bgp_is_and_names_the_files_of_the_settings(tmp_path):
    *_, bird = put(tmp_path, Settings(bgp=BGP, run_dir="/run/other"))

    assert bird == tmp_path / BIRD_UNIT
    assert "-c /run/other/bird.conf -s /run/other/bird.ctl\n" in bird.read_text()
    assert "RuntimeDirectory=other\n" in bird.read_text()
    assert bird in uninstall(tmp_path)


def test_the_units_run_the_interpreter_that_has_pycni(tmp_path):
    setup, agent = put(tmp_path, python=Path("/srv/venv/bin/python3"))

    assert "ExecStart=/srv/venv/bin/python3 -I -m pycni setup\n" in setup.read_text()
    assert "ExecStart=/srv/venv/bin/python3 -I -m pycni agent --no-setup\n" in agent.read_text()


def test_a_settings_file_that_is_not_the_default_is_named(tmp_path):
    setup, _ = put(tmp_path, config=Path("/etc/other.toml"))

    assert "-m pycni --config /etc/other.toml setup\n" in setup.read_text()


def test_the_settings_directories_are_those_the_units_may_write():
    settings = Settings(
        state_dir="/var/lib/a/b", run_dir="/srv/run", cache_dir="/var/cache/c", bpffs="/mnt/bpf"
    )

    lines = render(AGENT, settings, config=None, python=PYTHON).splitlines()

    assert "StateDirectory=a/b" in lines
    assert "ReadWritePaths=/srv/run" in lines
    assert "CacheDirectory=c" in lines
    assert "AssertPathIsMountPoint=/mnt/bpf" in lines
    assert "ReadWritePaths=/proc/sys/net /mnt/bpf -/var/lib/cni" in lines
    assert not any("/sys/fs/bpf" in line or line == "StateDirectory=pycni" for line in lines)


@pytest.mark.parametrize(
    "url", ["sqlite:/srv/shared/cluster.db", "sqlite:///srv/shared/cluster.db"]
)
def test_an_embedded_store_elsewhere_may_be_written(url):
    text = render(AGENT, Settings(store=url), config=None, python=PYTHON)

    assert "ReadWritePaths=/srv/shared\n" in text


@pytest.mark.parametrize("python", ["/root/pycni/.venv/bin/python3", "/home/me/venv/bin/python3"])
def test_an_interpreter_that_the_units_do_not_see_is_refused(tmp_path, python):
    with pytest.raises(InvalidSettings, match="the units do not see") as caught:
        put(tmp_path, python=Path(python))

    assert "/opt/pycni" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state_dir": "/tmp/pycni"}, "state_dir is /tmp/pycni, and the units do not see /tmp"),
        ({"cache_dir": "/var/cache/with space"}, "cache_dir is '/var/cache/with space'"),
        ({"run_dir": "/run/100%"}, "run_dir is '/run/100%'"),
    ],
)
def test_a_directory_that_the_units_could_not_use_is_refused(tmp_path, settings, message):
    with pytest.raises(InvalidSettings, match=message):
        put(tmp_path, Settings(**settings))

    assert list(tmp_path.iterdir()) == []


def test_a_unit_of_somebody_else_stays_and_the_other_is_not_written(tmp_path):
    (tmp_path / AGENT).write_text(FOREIGN)

    with pytest.raises(FileError, match="pycni did not write it"):
        put(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [AGENT]
    assert uninstall(tmp_path) == []
    assert (tmp_path / AGENT).read_text() == FOREIGN


def test_our_own_older_units_are_replaced(tmp_path):
    put(tmp_path, python=Path("/opt/old/bin/python3"))

    setup, _ = put(tmp_path)

    assert "/opt/pycni/bin/python3 -I" in setup.read_text()
    assert "/opt/old" not in setup.read_text()


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def read_only(*_arguments: object, **_options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", read_only)

    with pytest.raises(FileError, match="Read-only file system"):
        put(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_uninstall_removes_units_and_what_enabled_them_and_again_nothing(tmp_path):
    setup, agent = put(tmp_path)
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    for unit in (setup, agent):
        (wants / unit.name).symlink_to(unit)
    (wants / "other.service").symlink_to("/lib/systemd/system/other.service")

    removed = uninstall(tmp_path)

    assert removed == [wants / AGENT, agent, wants / SETUP, setup]
    assert [path.name for path in wants.iterdir()] == ["other.service"]
    assert uninstall(tmp_path) == []


def test_a_unit_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    put(tmp_path)

    def read_only(*_arguments: object, **_options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)

    with pytest.raises(FileError, match=r"pycni-agent\.service cannot be removed"):
        uninstall(tmp_path)


def test_systemd_finds_no_fault_with_the_units(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "HIDDEN", ())
    written = put(tmp_path, Settings(bgp=BGP), python=Path(sys.executable))
    bird = tmp_path / BIRD_UNIT
    bird.write_text(bird.read_text().replace("/usr/sbin/bird", sys.executable))
    names = [path.name for path in written]

    verdict = analyze("verify", "--man=no", "--generators=no", *names, root=tmp_path)

    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


def test_systemd_finds_a_fault_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "HIDDEN", ())
    setup, _ = put(tmp_path, python=Path(sys.executable))
    setup.write_text(setup.read_text() + "NoSuchThing=yes\n")

    verdict = analyze("verify", "--man=no", "--generators=no", *UNITS, root=tmp_path)

    assert "NoSuchThing" in verdict.stderr


@pytest.mark.parametrize("name", [*UNITS, BIRD_UNIT])
def test_the_units_are_as_closed_as_they_can_be(tmp_path, name):
    put(tmp_path, Settings(bgp=BGP))

    verdict = analyze(
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE_MAX[name] * 10:.0f}",
        name,
        root=tmp_path,
    )

    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize("name", UNITS)
def test_every_remaining_exposure_is_explained(tmp_path, name):
    put(tmp_path)
    explained = (Path(__file__).parents[3] / "deploy" / "README.md").read_text()

    report = analyze("security", "--offline=true", "--json=short", name, root=tmp_path)

    exposed = [one["json_field"] for one in json.loads(report.stdout) if one["exposure"]]
    assert exposed
    assert [field for field in exposed if f"`{field}`" not in explained] == []
