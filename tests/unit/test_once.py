# SPDX-License-Identifier: Apache-2.0
"""pycni/once.py: the plugin's work without an agent, as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONF = b'{"cniVersion": "1.0.0", "name": "podnet"}'
DEL = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c0ffee", "CNI_IFNAME": "eth0"}


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "pycni.toml"
    file.write_text('node_name = "node-one"\n')
    return file


def run(env, *, settings, before="pass", stdin=CONF, cwd=None):
    """The module as `python -m` runs it, after the Python statements in `before`.

    `stdin` is bytes, or a file that becomes descriptor 0.
    """
    code = f"import sys; {before}; from pycni import once; once.main()"
    return subprocess.run(
        [sys.executable, "-c", code, str(settings)],
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        cwd=cwd,
        timeout=30,
        check=False,
        **({"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}),
    )


def test_an_error_is_one_json_document_on_stdout(settings):
    done = run(DEL | {"CNI_COMMAND": "FROB"}, settings=settings)

    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 4


def test_it_runs_as_a_module(settings):
    done = subprocess.run(
        [sys.executable, "-m", "pycni.once", str(settings)],
        env={"CNI_COMMAND": "FROB", "PYTHONPATH": str(ROOT)},
        input=CONF,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert json.loads(done.stdout)["code"] == 4


def test_wrong_settings_are_told_with_their_code(settings):
    settings.write_text("vni = 'x'\n")

    done = run(DEL, settings=settings)

    assert json.loads(done.stdout)["code"] == 7
    assert str(settings) in json.loads(done.stdout)["msg"]


def test_without_a_settings_file_the_usual_one_is_meant(tmp_path):
    default = tmp_path / "pycni.toml"
    default.write_text("vni = 'x'\n")
    before = (
        f"import pathlib, pycni.settings as s; s.SETTINGS_PATH = pathlib.Path({str(default)!r})"
    )

    done = run(DEL, settings="", before=before)

    assert str(default) in json.loads(done.stdout)["msg"]


def test_stdin_that_cannot_be_read_is_told(settings):
    with Path("/dev/null").open("wb") as for_writing_only:
        done = run(DEL, settings=settings, stdin=for_writing_only)

    assert json.loads(done.stdout)["code"] == 5


def test_the_path_of_a_namespace_may_be_relative(settings):
    add = DEL | {"CNI_COMMAND": "ADD", "CNI_NETNS": "net"}

    done = run(add, settings=settings, cwd="/proc/self/ns")

    assert "of the node itself" in json.loads(done.stdout)["msg"]


def test_what_anything_prints_goes_to_stderr(settings):
    before = (
        "import os, pycni.attachments.dispatch as v, pycni.cni.protocol as c; "
        "v.answer = lambda *_, **__: "
        "(print('noise', flush=True), os.system('echo noise'), c.Reply(0, b'{}', b'log'))[-1]"
    )

    done = run(DEL, settings=settings, before=before)

    assert (done.returncode, done.stdout) == (0, b"{}")
    assert done.stderr == b"noise\nnoise\nlog"


@pytest.mark.parametrize("broken", ["pycni.settings", "pycni.attachments.dispatch"])
def test_a_broken_installation_is_an_internal_error(settings, broken):
    done = run(DEL, settings=settings, before=f"sys.modules[{broken!r}] = None")

    error = json.loads(done.stdout)
    assert done.returncode == 1
    assert error["code"] == 999
    assert "not found" not in error["msg"]
    assert b"Traceback" in done.stderr


def test_sigterm_unwinds_what_was_begun(settings):
    before = (
        "import os, signal, pycni.attachments.dispatch as v; "
        "v.answer = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)"
    )

    done = run(DEL, settings=settings, before=before)

    assert done.returncode == 1
    assert "KeyboardInterrupt" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("stdout", ["closed", "open"])
def test_an_add_that_nobody_hears_of_is_taken_back(settings, tmp_path, stdout):
    reader, writer = os.pipe()
    if stdout == "closed":
        os.close(reader)
    mark = tmp_path / "taken-back"
    code = (
        "import pycni.attachments.dispatch as v, pycni.cni.protocol as c; from pathlib import Path;"
        f"v.answer = lambda *_, **__: c.Reply(0, b'{{}}', take_back=Path({str(mark)!r}).touch);"
        "from pycni import once; once.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(settings)],
        env={"CNI_COMMAND": "ADD", "PYTHONPATH": str(ROOT)},
        input=CONF,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(writer)

    assert done.returncode == (1 if stdout == "closed" else 0), done.stderr
    assert mark.exists() is (stdout == "closed")


def test_sigterm_comes_too_late_for_what_is_done(settings):
    before = (
        "import os, signal, pycni.attachments.dispatch as v, pycni.cni.protocol as c, "
        "pycni.cni.plugin as p; "
        "v.answer = lambda *_, **__: c.Reply(0, b'{}'); write = p.write; "
        "p.write = lambda *a: (os.kill(os.getpid(), signal.SIGTERM), write(*a))[-1]"
    )

    done = run(DEL, settings=settings, before=before)

    assert (done.returncode, done.stdout) == (0, b"{}")


def test_a_closed_stdout_is_an_error_and_no_crash(settings):
    reader, writer = os.pipe()
    os.close(reader)
    code = "from pycni import once; once.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(settings)],
        env={"CNI_COMMAND": "FROB", "PYTHONPATH": str(ROOT)},
        input=CONF,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(writer)

    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
