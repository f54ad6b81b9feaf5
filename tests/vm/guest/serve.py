# SPDX-License-Identifier: Apache-2.0
"""The last of a guest's init: runs what the host asks for, and answers. Standard library only.

A line of JSON each way over a virtio-serial port. Requests, each with an "id":

    {"command": [...], "stdin": "", "env": {}, "timeout": 60}   run; answered when it has ended
    {"end": ID}                                                 kill the command of that request

Answers: {"id", "status", "stdout", "stderr"}, the status negative for a signal, None for one that
was out of time. The first line is {"ready": true}. The machine lives as long as this process.
"""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, BinaryIO

PORTS = Path("/sys/class/virtio-ports")

running: dict[int, subprocess.Popen[bytes]] = {}
writing = threading.Lock()


def main() -> None:
    (port,) = PORTS.iterdir()
    with Path(f"/dev/{port.name}").open("r+b", buffering=0) as channel:
        say(channel, {"ready": True})
        pending = b""
        while True:
            data = os.read(channel.fileno(), 1 << 16)
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "end" in request:
                    end(request["end"])
                else:
                    begin(channel, request)


def begin(channel: BinaryIO, request: dict[str, Any]) -> None:
    """Starts the command at once, so that the next request can end it; a thread answers."""
    try:
        process = subprocess.Popen(
            request["command"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | request["env"],
            start_new_session=True,
        )
    except OSError as error:
        say(channel, {"id": request["id"], "status": 127, "stdout": "", "stderr": str(error)})
        return
    running[request["id"]] = process
    threading.Thread(target=answer, args=(channel, request, process), daemon=True).start()


def answer(channel: BinaryIO, request: dict[str, Any], process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a command, and of all that it started, if its time is out."""
    status: int | None
    try:
        out, err = process.communicate(request["stdin"].encode(), request["timeout"])
        status = process.returncode
    except subprocess.TimeoutExpired:
        end(request["id"])
        out, err = process.communicate()
        status = None
    del running[request["id"]]
    text = {"stdout": out.decode(errors="replace"), "stderr": err.decode(errors="replace")}
    say(channel, {"id": request["id"], "status": status} | text)


def end(number: int) -> None:
    process = running.get(number)
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def say(channel: BinaryIO, message: dict[str, Any]) -> None:
    """The port takes a part of a long line at a time."""
    data = json.dumps(message).encode() + b"\n"
    with writing:
        while data:
            data = data[channel.write(data) :]


main()
