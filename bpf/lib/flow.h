/* SPDX-License-Identifier: GPL-2.0-only */
/* The outer UDP source port. Routers and NICs of the underlay see only the outer
 * headers, and by this port they keep the packets of a flow together and spread
 * flows over links and queues.
 */
#pragma once

#include "parse.h"

#define SOURCE_PORTS 0xc000 /* 49152 to 65535, RFC 7348 5 */
#define GOLDEN_RATIO 0x9e3779b97f4a7c15

static __always_inline bool has_ports(const struct packet *packet)
{
	return !is_fragment4(packet) &&
	       (packet->l4_proto == IPPROTO_TCP || packet->l4_proto == IPPROTO_UDP ||
		packet->l4_proto == IPPROTO_SCTP);
}

static __always_inline __u64 mix(__u64 hash, __u32 word)
{
	hash = (hash ^ word) * GOLDEN_RATIO;
	return hash ^ hash >> 32;
}

/* The same for all fragments of a packet. */
static __always_inline __u32 hash_flow(struct __sk_buff *ctx, const struct packet *packet)
{
	__u64 hash = packet->l4_proto;
	__u32 ports;

	if (!is_mapped_ip4(&packet->src))
		for (int i = 0; i < 3; i++)
			hash = mix(hash, packet->src.words[i] ^ packet->dst.words[i] << 1);
	hash = mix(hash, packet->src.words[3]);
	hash = mix(hash, packet->dst.words[3]);
	if (has_ports(packet) && !bpf_skb_load_bytes(ctx, packet->l4_off, &ports, sizeof(ports)))
		hash = mix(hash, ports);
	return hash;
}

/* A connected socket has put its hash into the skb. */
static __always_inline __be16 choose_source_port(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 hash = ctx->hash;

	if (!hash)
		hash = hash_flow(ctx, packet);
	return bpf_htons(SOURCE_PORTS | (hash ^ hash >> 16));
}
