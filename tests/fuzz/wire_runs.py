# SPDX-License-Identifier: Apache-2.0
"""One program, run with millions of frames: BPF_PROG_TEST_RUN, without an allocation for each."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from bpf.dataplane import AF_INET, FIRST, IP6_LENGTH, REDIRECT_RECORD, TUNNEL_RECORD, Dataplane
from bpf.outcomes import BPF_F_INGRESS
from bpf.world import STACK_IFINDEX
from loader import libbpf

REDIRECT, REDIRECT_PEER, REDIRECT_NEIGH = 1, 2, 3
BPF_F_TUNINFO_IPV6 = 1


class Went(NamedTuple):
    """What a program did last."""

    helper: int
    """REDIRECT, REDIRECT_PEER or REDIRECT_NEIGH."""
    ifindex: int
    flags: int
    neighbour: bytes = b""
    """Of REDIRECT_NEIGH: its address, packed."""

    @property
    def into_stack(self) -> bool:
        return self[:3] == (REDIRECT, STACK_IFINDEX, BPF_F_INGRESS)

    @property
    def host_end(self) -> int:
        """Interface by which it enters a pod; 0 if that is not how it goes."""
        enters = self.helper in (REDIRECT, REDIRECT_PEER) and not self.flags
        return self.ifindex if enters else 0


class Runs:
    """A program, run as often as may be."""

    def __init__(self, dataplane: Dataplane, program: str) -> None:
        self._dataplane, self._program = dataplane, program
        self._fd = dataplane.programs[program].fd
        self._run = libbpf.library().bpf_prog_test_run_opts
        self._out = ctypes.create_string_buffer(4096)
        self._redirect = dataplane.maps["last_redirect"]
        self._tunnel = dataplane.maps["last_tunnel"]
        self._options = libbpf._TestRunOpts(
            sz=ctypes.sizeof(libbpf._TestRunOpts),
            data_out=ctypes.addressof(self._out),
            repeat=1,
        )

    def __call__(self, frame: bytes) -> tuple[int, bytes]:
        """Action and packet."""
        if len(frame) < IP6_LENGTH:  # test_run takes no shorter ones
            result = self._dataplane.test_run(self._program, frame)
            return result.action, result.packet
        options = self._options
        options.data_in = frame
        options.data_size_in = len(frame)
        options.data_size_out = len(self._out)
        libbpf.check(self._run(self._fd, ctypes.byref(options)), "test run")
        return ctypes.c_int32(options.retval).value, self._out.raw[: options.data_size_out]

    def tagged(self, frame: bytes) -> tuple[int, bytes]:
        """The same for a frame whose VLAN tag is outside of its bytes."""
        result = self._dataplane.test_run_tagged(self._program, frame)
        return result.action, result.packet

    def went(self) -> Went:
        """Arguments of the last redirect."""
        helper, ifindex, flags, family, neighbour, _ = REDIRECT_RECORD.unpack(
            self._redirect.lookup(FIRST) or b""
        )
        if helper != REDIRECT_NEIGH:
            return Went(helper, ifindex, flags)
        return Went(helper, ifindex, flags, neighbour[: 4 if family == AF_INET else 16])

    def vtep(self) -> bytes:
        """That of the last tunnel key."""
        record = TUNNEL_RECORD.unpack(self._tunnel.lookup(FIRST) or b"")
        remote, flags = record[1], record[8]
        return bytes(remote) if flags & BPF_F_TUNINFO_IPV6 else bytes(remote[3::-1])
