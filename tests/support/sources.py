# SPDX-License-Identifier: Apache-2.0
"""C sources for loader tests: the five programs, each a few lines, in several versions.

They count packets by version in a map, so that a test sees which version runs at a hook.
"""

from __future__ import annotations

import struct
from pathlib import Path

from loader.places import OBJECTS

HEADER = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct endpoint {{
	{endpoint}
}};

struct config {{
	__u32 mark;
}};

const volatile struct config config SEC(".rodata");
const volatile char identity[19] SEC(".rodata");

struct {{
	__uint(type, BPF_MAP_TYPE_{kind});
	__uint(max_entries, {endpoints});
	__type(key, __u32);
	__type(value, struct endpoint);
}} endpoints SEC(".maps");

struct {{
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
}} runs SEC(".maps");

struct {{
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
}} events SEC(".maps");

char LICENSE[] SEC("license") = "GPL";
"""

PROGRAM = """
#include "lib/all.h"

SEC("tc")
int {name}(struct __sk_buff *ctx)
{{
	__u32 version = {version};
	__u64 *count = bpf_map_lookup_elem(&runs, &version);
	struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &version);

	if (count)
		__sync_fetch_and_add(count, 1);
	if (ep)
		bpf_ringbuf_output(&events, ep, sizeof(*ep), 0);
	ctx->mark = config.mark;
	{extra}
	return TC_ACT_OK;
}}
"""

UNVERIFIABLE = "return *(volatile int *)(long)ctx->data;"  # reads a packet without a bound
UNCOMPILABLE = "this is no C;"
ENDPOINT = "__u32 ifindex; __u32 flags;"


def write_sources(
    directory: Path,
    *,
    version: int = 1,
    kind: str = "HASH",
    endpoints: int = 8,
    endpoint: str = ENDPOINT,
    broken: dict[str, str] | None = None,
) -> Path:
    """Write the sources; `kind` and `endpoints`: of the map; `broken` adds a line to a program."""
    (directory / "lib").mkdir(parents=True)
    header = HEADER.format(kind=kind, endpoints=endpoints, endpoint=endpoint)
    (directory / "lib/all.h").write_text(header)
    for name in OBJECTS:
        extra = (broken or {}).get(name, "")
        text = PROGRAM.format(name=name, version=version, extra=extra)
        (directory / f"{name}.c").write_text(text)
    return directory


def config(mark: int = 7) -> bytes:
    """struct config of these sources."""
    return struct.pack("=I", mark)


def key(number: int) -> bytes:
    """Key of both maps."""
    return struct.pack("=I", number)
