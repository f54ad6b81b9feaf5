/* SPDX-License-Identifier: GPL-2.0-only */
/* path_mtus: underlay address of another node -> what fits the path to it, if that
 * is less than the overlay's MTU
 *
 * A packet that is too big is dropped somewhere on the path, and the error for it
 * comes to this node, not to the pod. So the agent writes here what the kernel has
 * learnt. It holds without an agent, too: a path that is wider by now costs only
 * smaller packets.
 */
#pragma once

#include "config.h"
#include "parse.h"

#define IP6_SMALLEST_MTU 1280 /* of every link, RFC 8200 5 */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, union ip_addr);
	__type(value, struct path_mtu);
} path_mtus SEC(".maps");

/* Largest IP packet of a pod that fits the path to a node, bytes. */
static __always_inline __u32 get_path_mtu(const union ip_addr *vtep)
{
	struct path_mtu *path = bpf_map_lookup_elem(&path_mtus, vtep);

	if (path && path->mtu < config.overlay_mtu)
		return path->mtu;
	return config.overlay_mtu;
}

/* Whether the path to a node carries less than the overlay's MTU. */
static __always_inline bool is_narrow(const union ip_addr *vtep)
{
	return get_path_mtu(vtep) < config.overlay_mtu;
}

/* The largest packet that its sender may send, on a path of `mtu`. An IPv6 sender
 * takes 1280 bytes for granted. If the path has less, the outer packet is cut.
 */
static __always_inline __u32 get_sender_mtu(const struct packet *packet, __u32 mtu)
{
	if (!is_ip4(packet) && mtu < IP6_SMALLEST_MTU)
		return IP6_SMALLEST_MTU;
	return mtu;
}
