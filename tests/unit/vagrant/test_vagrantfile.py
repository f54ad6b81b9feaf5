# SPDX-License-Identifier: Apache-2.0
"""vagrant/: Vagrant accepts the lab's file, and the script that provisions is one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from smoke.box import packages_of

LAB = Path(__file__).parents[3] / "vagrant"


def vagrant(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("vagrant")
    if tool is None:
        pytest.skip("missing: vagrant (apt install vagrant; Ubuntu has none)")
    home = directory / "home"
    env = {"VAGRANT_HOME": str(home), "VAGRANT_CHECKPOINT_DISABLE": "1", "HOME": str(home),
           "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
           "VAGRANT_DOTFILE_PATH": str(directory / "dot")}  # fmt: skip
    return subprocess.run(
        [tool, *arguments], cwd=directory, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for name in ("Vagrantfile", "provision.sh"):
        shutil.copy(LAB / name, tmp_path)
    return tmp_path


def test_vagrant_accepts_the_lab(lab: Path) -> None:
    done = vagrant(lab, "validate", "--ignore-provider")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vagrantfile validated successfully" in done.stdout


def test_vagrant_refuses_a_lab_with_a_mistake(lab: Path) -> None:
    file = lab / "Vagrantfile"
    file.write_text(file.read_text().replace("node.vm.hostname", "node.vm.hostnam"))

    assert vagrant(lab, "validate", "--ignore-provider").returncode != 0


def test_the_provisioning_script_is_one() -> None:
    done = subprocess.run(
        ["bash", "-n", str(LAB / "provision.sh")], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_node_gets_the_packages_that_the_makefile_lists() -> None:
    makefile = (LAB.parent / "Makefile").read_text()
    (listed,) = re.findall(r"^PACKAGES = (.*)$", makefile, re.MULTILINE)

    assert set(listed.split()) <= set(packages_of(LAB / "provision.sh"))
