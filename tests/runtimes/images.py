# SPDX-License-Identifier: Apache-2.0
"""Container images, put together byte by byte: nothing is downloaded and nothing compiled.

An image is an OCI layout in a tar archive (OCI image format specification 1.0), which containerd
and podman both load.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAUSE = "localhost/pause:1"
BUSYBOX = "localhost/busybox:1"

BUSYBOX_PROGRAM = Path("/bin/busybox")
"""Static, of Debian's busybox-static."""

SLEEPING_CODE = {
    # mov eax, 14; xor edi, edi; lea rsi, [set]; xor edx, edx; mov r10d, 8; syscall
    # mov eax, 128; lea rdi, [set]; xor esi, esi; xor edx, edx; mov r10d, 8; syscall
    # mov eax, 60; xor edi, edi; syscall; set: 1 << 14
    "x86_64": (
        62,
        "amd64",
        bytes.fromhex(
            "b80e000000 31ff 488d352b000000 31d2 41ba08000000 0f05"
            "b880000000 488d3d15000000 31f6 31d2 41ba08000000 0f05"
            "b83c000000 31ff 0f05 0040000000000000"
        ),
    ),
    # mov x0, 0; adr x1, set; mov x2, 0; mov x3, 8; mov x8, 135; svc 0
    # adr x0, set; mov x1, 0; mov x2, 0; mov x3, 8; mov x8, 137; svc 0
    # mov x0, 0; mov x8, 93; svc 0; set: 1 << 14
    "aarch64": (
        183,
        "arm64",
        bytes.fromhex(
            "000080d2 c1010010 020080d2 030180d2 e81080d2 010000d4"
            "20010010 010080d2 020080d2 030180d2 281180d2 010000d4"
            "000080d2 a80b80d2 010000d4 0040000000000000"
        ),
    ),
}
"""By machine: ELF's and OCI's name for it, and code that sleeps until SIGTERM: rt_sigprocmask(2)
blocks that, rt_sigtimedwait(2) waits for it, then exit(2). The first process of a PID namespace
gets only signals that it handles or blocks: with neither, a machine's shutdown waits in vain."""

LOAD_ADDRESS = 0x400000
ELF_HEADER, PROGRAM_HEADER = 64, 56
"""Bytes, elf(5)."""


def pause_archive(path: Path, name: str = PAUSE) -> None:
    """An image of one program that sleeps until it is told to end."""
    _write_archive(path, name, {"pause": sleeping_program()}, ["/pause"])


def busybox_archive(path: Path) -> None:
    """An image of busybox, which sleeps unless it is told something else."""
    files = {"bin/busybox": BUSYBOX_PROGRAM.read_bytes()}
    _write_archive(path, BUSYBOX, files, ["/bin/busybox", "sleep", "3600"])


def sleeping_program() -> bytes:
    """A static executable: an ELF header, one segment, the code (elf(5))."""
    machine, _, code = SLEEPING_CODE[platform.machine()]
    start = ELF_HEADER + PROGRAM_HEADER
    size = start + len(code)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0),  # 64 bits, little endian, version 1, System V
        *(2, machine, 1),  # an executable
        *(LOAD_ADDRESS + start, ELF_HEADER, 0, 0),
        *(ELF_HEADER, PROGRAM_HEADER, 1, 0, 0, 0),
    )
    readable_and_executable = 5
    segment = struct.pack(
        "<IIQQQQQQ", 1, readable_and_executable, 0, *(LOAD_ADDRESS,) * 2, *(size,) * 2, 0x1000
    )
    return header + segment + code


def _write_archive(
    path: Path, name: str, files: Mapping[str, bytes], command: Sequence[str]
) -> None:
    layer = _tar(files, mode=0o755)
    config = _json(
        {
            "architecture": SLEEPING_CODE[platform.machine()][1],
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    }
    blobs = {f"blobs/sha256/{_digest(one)[7:]}": one for one in (layer, config, manifest)}
    layout = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
    }
    path.write_bytes(_tar(layout | blobs, mode=0o644))


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _tar(files: Mapping[str, bytes], *, mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
