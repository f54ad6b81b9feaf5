/* SPDX-License-Identifier: GPL-2.0-only */
/* remotes: pod CIDRs and single addresses of other nodes' pods -> their VTEP */
#pragma once

#include "config.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct remote_key);
	__type(value, struct remote);
} remotes SEC(".maps");

static __always_inline struct remote *lookup_prefix(const union ip_addr *addr,
						    const volatile struct remote_key *cut)
{
	struct remote_key key = { .prefixlen = cut->prefixlen };

	for (int i = 0; i < 4; i++)
		key.addr.words[i] = addr->words[i] & cut->addr.words[i];
	return bpf_map_lookup_elem(&remotes, &key);
}

/* The node in whose pod CIDR an address is. The map is a hash, since the cost of a
 * trie grows with the number of nodes (docs/lookups.md). A hash is enough because
 * all pod CIDRs of a family have the same length.
 */
static __always_inline struct remote *lookup_remote_node(const union ip_addr *addr)
{
	if (!is_in_cluster(addr))
		return NULL;
	if (is_mapped_ip4(addr))
		return lookup_prefix(addr, &config.node_prefix4);
	return lookup_prefix(addr, &config.node_prefix6);
}

/* The node that published this one address. */
static __always_inline struct remote *lookup_remote_address(const union ip_addr *addr)
{
	struct remote_key key = { .prefixlen = 128, .addr = *addr };

	return bpf_map_lookup_elem(&remotes, &key);
}

/* At most one of the two finds something: no node publishes an address that is in
 * the pod CIDR of another.
 */
static __always_inline struct remote *lookup_remote(const union ip_addr *addr)
{
	struct remote *remote = lookup_remote_node(addr);

	return remote ? remote : lookup_remote_address(addr);
}

/* Whether `addr` is a pod, or the gateway, of the node at `vtep`. */
static __always_inline bool is_behind(const union ip_addr *vtep, const union ip_addr *addr)
{
	struct remote *remote = lookup_remote(addr);

	return remote && same_address(&remote->vtep, vtep);
}
