/* SPDX-License-Identifier: GPL-2.0-only */
/* ICMP errors about translated packets. Who gets one looks for the packet that it
 * quotes: so that must be as he has sent it, and in its place the addresses of the
 * error itself. It is the same both ways, to the client and to the endpoint.
 *
 * The sum of what is quoted stays as it is: it may not be there, and nobody looks at it.
 */
#pragma once

#include "flows.h"
#include "rewrite.h"

#define ICMP_SUM 2 /* bytes before the sum, RFC 792 and RFC 4443 2.1 */
#define ICMP_HEAD 8 /* bytes before the packet that is quoted */

/* Unreachable, time exceeded, parameter problem: RFC 792; and RFC 4443 3, where "too
 * big" is one of its own.
 */
static __always_inline bool is_error(struct __sk_buff *ctx, const struct packet *packet)
{
	__u8 type;

	if (is_fragment4(packet) ||
	    (packet->l4_proto != IPPROTO_ICMP && packet->l4_proto != IPPROTO_ICMPV6))
		return false;
	if (bpf_skb_load_bytes(ctx, packet->l4_off, &type, sizeof(type)))
		return false;
	if (packet->l4_proto == IPPROTO_ICMP)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* The key of what would answer the packet that the error quotes at `off`; `ports` is
 * where its ports are. False if it has none: they are in the first 8 bytes behind the IP
 * header, which every error has. `key` is of zeros.
 */
static __always_inline bool read_quoted(struct __sk_buff *ctx, const struct packet *packet,
					__u32 off, struct flow_key *key, __u32 *ports)
{
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
	} head;
	__be16 both[2];

	if (packet->l4_proto == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(ctx, off, &head.ip4, sizeof(head.ip4)) ||
		    head.ip4.frag_off & bpf_htons(IP4_FRAGMENT_OFFSET))
			return false;
		map_ip4(&key->dst, head.ip4.saddr);
		map_ip4(&key->src, head.ip4.daddr);
		key->proto = head.ip4.protocol;
		*ports = off + head.ip4.ihl * 4;
	} else {
		if (bpf_skb_load_bytes(ctx, off, &head.ip6, sizeof(head.ip6)))
			return false;
		copy_ip6(&key->dst, &head.ip6.saddr);
		copy_ip6(&key->src, &head.ip6.daddr);
		key->proto = head.ip6.nexthdr;
		*ports = off + sizeof(head.ip6);
	}
	if ((key->proto != IPPROTO_TCP && key->proto != IPPROTO_UDP &&
	     key->proto != IPPROTO_SCTP) ||
	    bpf_skb_load_bytes(ctx, *ports, both, sizeof(both)))
		return false;
	key->dport = both[0];
	key->sport = both[1];
	return true;
}

static __always_inline int write_quoted4(struct __sk_buff *ctx, __u32 off,
					 const struct flow_key *to, __s64 change)
{
	__be32 addrs[2] = { to->dst.words[3], to->src.words[3] };

	return bpf_l3_csum_replace(ctx, off + offsetof(struct iphdr, check), 0, change, 0) ||
	       bpf_skb_store_bytes(ctx, off + offsetof(struct iphdr, saddr), addrs, sizeof(addrs),
				   0);
}

static __always_inline int write_quoted6(struct __sk_buff *ctx, __u32 off,
					 const struct flow_key *to)
{
	return bpf_skb_store_bytes(ctx, off + offsetof(struct ipv6hdr, saddr), &to->dst,
				   sizeof(to->dst), 0) ||
	       bpf_skb_store_bytes(ctx, off + offsetof(struct ipv6hdr, daddr), &to->src,
				   sizeof(to->src), 0);
}

/* What is quoted goes the other way than `from` and `to`. For a sum that is the same.
 * The sum of an IPv4 header makes up for its addresses: only the ports are left for that
 * of the error.
 */
static __noinline int write_quoted(struct __sk_buff *ctx, const struct packet *packet, __u32 ports,
				   const struct flow_key *from, const struct flow_key *to)
{
	__u32 off = packet->l4_off + ICMP_HEAD;
	__u32 sum = packet->l4_off + ICMP_SUM;
	__s64 change = bpf_csum_diff((void *)&from->src, ADDRESSES, (void *)&to->src, ADDRESSES, 0);
	__be16 both[2] = { to->dport, to->sport };
	__be32 old, new;
	long err;

	__builtin_memcpy(&old, &from->sport, sizeof(old));
	__builtin_memcpy(&new, &to->sport, sizeof(new));
	err = bpf_l4_csum_replace(ctx, sum, old, new, sizeof(new)) ||
	      bpf_skb_store_bytes(ctx, ports, both, sizeof(both), 0);
	if (!err && packet->l4_proto == IPPROTO_ICMP)
		err = write_quoted4(ctx, off, to, change);
	else if (!err)
		err = bpf_l4_csum_replace(ctx, sum, 0, change, 0) || write_quoted6(ctx, off, to);
	return err ? -DROP_REWRITE_FAILED : 0;
}

/* The error is as a packet of the flow where its ends are the flow's. A router between
 * them keeps its address.
 */
static __noinline int write_ends(struct __sk_buff *ctx, struct packet *packet,
				 const struct flow_key *from, const struct flow_key *to)
{
	struct flow_key ends = { .src = packet->src, .dst = packet->dst };
	__s64 change;
	int drop;

	if (same_address(&packet->src, &from->src))
		ends.src = to->src;
	if (same_address(&packet->dst, &from->dst))
		ends.dst = to->dst;
	change = bpf_csum_diff((void *)&packet->src, ADDRESSES, (void *)&ends.src, ADDRESSES, 0);
	if (packet->l4_proto == IPPROTO_ICMP)
		drop = write_addresses4(ctx, &ends, change);
	else if (bpf_l4_csum_replace(ctx, packet->l4_off + ICMP_SUM, 0, change, BPF_F_PSEUDO_HDR))
		drop = -DROP_REWRITE_FAILED;
	else
		drop = write_addresses6(ctx, &ends, change);
	packet->src = ends.src;
	packet->dst = ends.dst;
	return drop;
}

/* 0 also for a packet that is no error, or about nothing that was translated. */
static __noinline int translate_error(struct __sk_buff *ctx, struct packet *packet)
{
	struct flow_key key = {};
	struct flow *flow;
	__u32 ports;
	int drop;

	if (!is_error(ctx, packet) ||
	    !read_quoted(ctx, packet, packet->l4_off + ICMP_HEAD, &key, &ports))
		return 0;
	flow = lookup_flow(&key);
	if (!flow || is_expired(flow, bpf_ktime_get_ns()))
		return 0;
	drop = write_quoted(ctx, packet, ports, &key, &flow->to);
	return drop ? drop : write_ends(ctx, packet, &key, &flow->to);
}
