/* SPDX-License-Identifier: GPL-2.0-only */
/* flows: what is translated, and into what. A flow has two entries: of its requests,
 * and of its answers. What is written in one is the other's key turned round.
 *
 * The programs honour the time in an entry: nobody has to remove what expired. TCP's
 * windows are not looked at. A packet outside of them is translated as any other;
 * its receiver knows what to do.
 */
#pragma once

#include "flow.h"
#include "parse.h"

#define SECOND 1000000000ULL /* ns */

#define TCP_FIN 0x01 /* RFC 9293 3.1 */
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define FLOW_STATE (FLOW_ANSWERED | FLOW_REQUEST_FIN | FLOW_ANSWER_FIN | FLOW_RESET)
#define FLOW_BOTH_FIN (FLOW_REQUEST_FIN | FLOW_ANSWER_FIN)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* The first bytes behind the IP header. */
struct head {
	__be16 sport;
	__be16 dport;
	__be32 of_tcp[2];
	__u8 data_offset;
	__u8 tcp_flags;
};

#define TCP_HEAD offsetof(struct head, tcp_flags) + 1
#define PORTS offsetof(struct head, of_tcp)

/* False for a packet that has no ports. Fragments count as such: only the first has
 * them. `key` is of zeros.
 */
static __always_inline bool read_flow(struct __sk_buff *ctx, const struct packet *packet,
				      struct flow_key *key, __u8 *tcp_flags)
{
	struct head head = {};
	__u32 length;

	if (!has_ports(packet))
		return false;
	length = packet->l4_proto == IPPROTO_TCP ? TCP_HEAD : PORTS;
	if (bpf_skb_load_bytes(ctx, packet->l4_off, &head, length))
		return false;
	key->src = packet->src;
	key->dst = packet->dst;
	key->sport = head.sport;
	key->dport = head.dport;
	key->proto = packet->l4_proto;
	*tcp_flags = head.tcp_flags;
	return true;
}

/* The key of what comes back. `key` is of zeros. */
static __always_inline void turn_round(struct flow_key *key, const struct flow_key *of)
{
	key->src = of->dst;
	key->dst = of->src;
	key->sport = of->dport;
	key->dport = of->sport;
	key->proto = of->proto;
}

/* Without branches: each would double what the verifier has to follow. */
static __always_inline bool same_flow(const struct flow_key *a, const struct flow_key *b)
{
	const __u32 *one = (const void *)a, *other = (const void *)b;
	__u32 differing = 0;

	for (__u32 i = 0; i < sizeof(*a) / sizeof(*one); i++)
		differing |= one[i] ^ other[i];
	return !differing;
}

static __always_inline bool is_opening(const struct flow_key *key, __u8 tcp_flags)
{
	return key->proto == IPPROTO_TCP && (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether an end of a TCP connection may begin a new one with the same ports. */
static __always_inline bool is_closing(const struct flow *flow)
{
	return flow->flags & FLOW_RESET || (flow->flags & FLOW_BOTH_FIN) == FLOW_BOTH_FIN;
}

/* Seconds. An established connection outlives the two hours after which TCP asks
 * whether the other end is alive (RFC 9293 3.8.4).
 */
static __always_inline __u64 get_timeout(__u8 proto, __u16 flags)
{
	switch (proto) {
	case IPPROTO_UDP:
		return flags & FLOW_ANSWERED ? 180 : 30;
	case IPPROTO_TCP:
		if (flags & FLOW_RESET)
			return 10;
		if ((flags & FLOW_BOTH_FIN) == FLOW_BOTH_FIN)
			return 30;
		return flags & FLOW_ANSWERED ? 8000 : 60;
	default:
		return flags & FLOW_ANSWERED ? 3600 : 60;
	}
}

static __always_inline struct flow *lookup_flow(const struct flow_key *key)
{
	return bpf_map_lookup_elem(&flows, key);
}

static __always_inline bool is_expired(const struct flow *flow, __u64 now)
{
	return flow->expires <= now;
}

static __always_inline void remove_flow(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key twin = {};

	turn_round(&twin, &flow->to);
	bpf_map_delete_elem(&flows, &twin);
	bpf_map_delete_elem(&flows, key);
}

static __always_inline void make_twin(struct flow *twin, const struct flow_key *key,
				      const struct flow *flow)
{
	turn_round(&twin->to, key);
	twin->expires = flow->expires;
	twin->backend = flow->backend;
	twin->generation = flow->generation;
	twin->flags = flow->flags ^ FLOW_REQUEST;
}

/* The kernel may have evicted one entry of the two. */
static __noinline void write_twin(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key twin_key = {};
	struct flow twin = {};
	struct flow *present;

	turn_round(&twin_key, &flow->to);
	make_twin(&twin, key, flow);
	present = lookup_flow(&twin_key);
	if (!present) {
		bpf_map_update_elem(&flows, &twin_key, &twin, BPF_NOEXIST);
	} else if (same_flow(&present->to, &twin.to)) {
		present->expires = twin.expires;
		present->flags = twin.flags;
	}
}

/* A packet of the flow has come. CPUs share the entries, so they are written once a
 * second at most, or when the state changes.
 */
static __always_inline void touch_flow(const struct flow_key *key, struct flow *flow,
				       __u8 tcp_flags, __u64 now)
{
	bool request = flow->flags & FLOW_REQUEST;
	__u16 flags = flow->flags;
	__u64 expires;

	if (!request)
		flags |= FLOW_ANSWERED;
	if (tcp_flags & TCP_FIN)
		flags |= request ? FLOW_REQUEST_FIN : FLOW_ANSWER_FIN;
	if (tcp_flags & TCP_RST)
		flags |= FLOW_RESET;
	expires = now + get_timeout(key->proto, flags) * SECOND;
	if (flags == flow->flags && expires < flow->expires + SECOND)
		return;
	flow->flags = flags;
	flow->expires = expires;
	write_twin(key, flow);
}
