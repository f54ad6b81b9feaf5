# SPDX-License-Identifier: Apache-2.0
"""The body of an answer as a stream: chunks (RFC 9112, section 7.1), gzip, lines.

http.client reads ahead of what it gives, and cannot say whether a read would wait. So chunks are
read here, and `Lines.soon` knows whether one more line is there.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import zlib
from io import BufferedReader
from typing import cast

PIECE = 64 << 10
"""Bytes that are read, and inflated, at a time."""
LINE_MAX = 4 << 20
"""Bytes; an object has at most 1.5 MiB in etcd."""
GZIP = 16 + zlib.MAX_WBITS
"""zlib's mode for a gzip header (zlib.h, inflateInit2)."""


class Body:
    """What an answer has after its head. All raise OSError or http.client.HTTPException."""

    def __init__(self, response: http.client.HTTPResponse, connection: socket.socket) -> None:
        self._file = cast("BufferedReader | None", response.fp)
        self._connection = connection
        self._chunked = bool(response.chunked)
        self._left: int | None = 0 if self._chunked else response.length
        self._ended = self._file is None or response.isclosed()
        coding = response.getheader("Content-Encoding", "")
        self._inflate = zlib.decompressobj(GZIP) if coding == "gzip" else None
        self._packed = b""

    def piece(self) -> bytes:
        """The next bytes; none at the end. Waits as long as the connection's timeout."""
        if self._inflate is None:
            return self._raw()
        inflate = self._inflate
        while packed := self._packed or self._raw():
            if (
                inflate.eof
            ):  # one member after the other (RFC 1952, section 2.2), one for each flush
                self._inflate = inflate = zlib.decompressobj(GZIP)
            try:
                data = inflate.decompress(packed, PIECE)
            except zlib.error as error:
                raise http.client.HTTPException(f"its gzip is broken: {error}") from error
            self._packed = inflate.unconsumed_tail or inflate.unused_data
            if data:
                return data
        if not inflate.eof:
            raise http.client.IncompleteRead(b"")
        return b""

    def is_waiting(self) -> bool:
        """Whether bytes are there, so that `piece` returns at once or nearly so."""
        if self._packed:
            return True
        if self._ended or self._file is None:
            return False
        timeout = self._connection.gettimeout()
        self._connection.settimeout(0.0)
        try:
            return bool(self._file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._connection.settimeout(timeout)

    def wait(self, seconds: float) -> bool:
        """Wait so long for bytes; whether there are some."""
        if self._ended or self.is_waiting():
            return not self._ended
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000)) and self.is_waiting()

    def _raw(self) -> bytes:
        """The next bytes as they were sent."""
        if self._ended or self._file is None:
            return b""
        if self._chunked and not self._left:
            self._left = self._chunk_size(self._file)
            if not self._left:
                self._ended = True
                return b""
        data = self._file.read1(PIECE if self._left is None else min(self._left, PIECE))
        if self._left is None:
            self._ended = not data
            return data
        if not data:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= len(data)
        if not self._left:
            if self._chunked:
                self._file.readline(PIECE)
            else:
                self._ended = True
        return data

    def _chunk_size(self, file: BufferedReader) -> int:
        """Reads the head of the next chunk, and what follows after the last."""
        head = file.readline(PIECE).partition(b";")[0].strip()
        try:
            size = int(head, 16)
        except ValueError:
            raise http.client.IncompleteRead(head) from None
        if size < 0:
            raise http.client.HTTPException("a chunk has no size")
        while not size and file.readline(PIECE).strip():
            pass  # trailers
        return size


class Lines:
    """The lines of a body."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._buffer = bytearray()
        self._searched = 0
        """Bytes of the buffer that have no end of a line."""

    def next(self) -> bytes:
        """The next line without its end; none at the end of the body. Waits."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            self._check(self._searched)
            piece = self._body.piece()
            if not piece:
                return self._take(len(self._buffer))
            self._buffer += piece
        self._check(end)
        return self._take(end) or self.next()

    def soon(self, seconds: float) -> bool:
        """Wait so long for one more line to begin; whether one has."""
        has_line = self._buffer.find(b"\n", self._searched) >= 0
        return has_line or self._body.wait(seconds)

    @staticmethod
    def _check(size: int) -> None:
        if size > LINE_MAX:
            raise http.client.HTTPException(f"a line has more than {LINE_MAX} bytes")

    def _take(self, end: int) -> bytes:
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line
