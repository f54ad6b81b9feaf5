/* SPDX-License-Identifier: GPL-2.0-only */
/* remotes: longest prefix of pods elsewhere -> the VTEP that owns it */
#ifndef PYCNI_REMOTES_H
#define PYCNI_REMOTES_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct remote_key);
	__type(value, struct remote);
} remotes SEC(".maps");

static __always_inline struct remote *lookup_remote(const union ip_addr *addr)
{
	struct remote_key key = { .prefixlen = 128, .addr = *addr };

	return bpf_map_lookup_elem(&remotes, &key);
}

#endif
