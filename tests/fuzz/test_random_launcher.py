# SPDX-License-Identifier: Apache-2.0
"""Random calls, answers and paths for the launcher, compiled with the sanitizers of the compiler:
an answer that a runtime can read, and never a wrong access to memory."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz import calls
from fuzz.profiles import examples
from fuzz.test_random_calls import HALF_A_CHARACTER, HEAD, answer, check_error
from fuzz.test_random_frames import streams
from pycni.cni import launcher, plugin
from pycni.cni.launcher import PATHS, render_paths
from pycni.cni.plugin import HELLO, pack

SANITIZED = ("-std=gnu11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CAUGHT = 99
"""The exit status of a wrong access to memory."""
WATCHED = {"ASAN_OPTIONS": f"exitcode={CAUGHT}", "UBSAN_OPTIONS": f"exitcode={CAUGHT}"}
TRY_AGAIN = 11
OWN_CODES = {0, 1, 4, 5, 6, 7, TRY_AGAIN, 50, 51}
SETTLED = (1, 4, 6)
"""Codes of what the launcher looks at as the agent does."""
SECONDS = 30.0


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with no Python to fall back on, and no agent but in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "COMPILERS", ("cc",))  # gcc brings its sanitizers along
        patch.setattr(launcher, "FLAGS", SANITIZED)
        program = launcher.compile_launcher()
    directory = tmp_path_factory.mktemp("launcher")
    (directory / "run" / "locks").mkdir(parents=True)
    path = directory / "pycni"
    path.write_bytes(program)
    path.chmod(0o755)
    place(path)
    return path


def place(executable: Path) -> None:
    directory = executable.parent
    paths = {"socket": directory / "socket", "run_dir": directory / "run", "pins": directory}
    (directory / PATHS).write_bytes(render_paths(paths))


def run(executable: Path, env: dict[str, str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [executable],
        env={**env, **WATCHED},
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode != CAUGHT, done.stderr.decode(errors="replace")
    assert done.returncode >= 0, f"signal {-done.returncode}"
    return done


def code_of(done: subprocess.CompletedProcess[bytes]) -> int:
    if done.returncode == 0:
        return 0
    check_error(done.returncode, done.stdout)
    assert done.stderr == b""
    return int(json.loads(done.stdout)["code"])


@examples(short=250, long=8_000)
@given(env=calls.environments, stdin=calls.stdins)
def test_any_environment_and_any_bytes_have_an_answer(
    executable: Path, env: dict[str, str], stdin: bytes
) -> None:
    assert code_of(run(executable, env, stdin)) in OWN_CODES


@examples(short=250, long=8_000)
@given(stdin=calls.stdins)
@example(stdin=calls.encoded(HEAD | HALF_A_CHARACTER))
def test_del_has_the_code_that_the_agent_gives(executable: Path, stdin: bytes) -> None:
    """But for lists in lists, which each interpreter takes to a depth of its own."""
    env = calls.usual("DEL")
    reply = answer(env, stdin, None)
    wanted = json.loads(reply.stdout)["code"] if reply.status else 0

    found = code_of(run(executable, env, stdin))

    assert found == wanted or b"[" * 450 in stdin


@examples(short=100, long=4_000)
@given(env=calls.environments, stdin=calls.stdins)
def test_what_the_agent_would_refuse_at_once_is_refused(
    executable: Path, env: dict[str, str], stdin: bytes
) -> None:
    reply = answer(env, stdin, None)
    wanted = json.loads(reply.stdout)["code"] if reply.status else 0

    if wanted in SETTLED and env["CNI_COMMAND"] and b"[" * 450 not in stdin:
        assert code_of(run(executable, env, stdin)) == wanted


@contextmanager
def agent(path: Path, says: bytes) -> Iterator[None]:
    """One that takes a call, says that, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(SECONDS)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.settimeout(SECONDS)
                connection.sendall(HELLO)
                plugin.receive(connection.recv)
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(SECONDS)
            path.unlink()


@examples(short=150, long=4_000)
@given(stream=streams)
@example(stream=pack(b"0", b"{}", b"", b"more"))
@example(stream=pack(b"0"))
def test_any_answer_of_an_agent_is_passed_on_or_lost(executable: Path, stream: bytes) -> None:
    with agent(executable.parent / "socket", stream):
        done = run(executable, calls.usual("ADD"), json.dumps(HEAD).encode())

    with suppress(ValueError, EOFError):
        status, stdout, stderr = plugin.unpack(stream[4:])[:3]
        if stream[:4] == len(stream[4:]).to_bytes(4, "big") and 0 < len(status) <= 3:
            if status.isdigit() and int(status) < 256:
                expected = (int(status), stdout, stderr)
                assert (done.returncode, done.stdout, done.stderr) == expected
            return
    assert code_of(done) == TRY_AGAIN


@examples(short=100, long=4_000)
@given(text=st.binary(max_size=300) | st.text("abrpins=/#\n\0", max_size=80).map(str.encode))
def test_any_file_of_paths_is_read_or_told(executable: Path, text: bytes) -> None:
    """`no agent` is told for whatever socket is found there."""
    env = calls.usual("ADD")
    (executable.parent / PATHS).write_bytes(b"socket=/nonexistent\n" + text)
    try:
        assert code_of(run(executable, env, json.dumps(HEAD).encode())) in (7, TRY_AGAIN)
    finally:
        place(executable)


def test_a_wrong_access_would_be_seen(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(int n, char **v) { char a[2] = {}; return a[n + 1] + !v; }\n")
    subprocess.run(["cc", *SANITIZED, "-o", tmp_path / "wrong", source], check=True)

    done = subprocess.run([tmp_path / "wrong"], env=WATCHED, capture_output=True, check=False)

    assert done.returncode == CAUGHT
