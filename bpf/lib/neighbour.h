/* SPDX-License-Identifier: GPL-2.0-only */
/* Answers to a pod that asks for a MAC: for every address, it is the gateway's.
 * So there is no ARP entry, no proxy_arp and no host address on the pod's link.
 *
 * A pod that asks for its own address gets no answer: it is checking for
 * duplicates (RFC 5227, RFC 4862 5.4), and an answer would mean "taken".
 *
 * The program rewrites the question into the answer and sends it back to the same
 * pod. No other pod sees it, so the sender is not checked.
 */
#pragma once

#include <linux/icmpv6.h>

#include "checksum.h"
#include "deliver.h"
#include "endpoints.h"
#include "parse.h"
#include "verdict.h"

/* RFC 826, for Ethernet and IPv4. <linux/if_arp.h> needs a libc for BPF. */
struct arp_frame {
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* By the bytes: on netkit ctx->protocol is what the pod says. Without a VLAN tag:
 * of a packet with one, the parser tells nothing.
 */
static __always_inline bool is_arp(const struct packet *packet)
{
	return packet->l3_proto == bpf_htons(ETH_P_ARP);
}

static __noinline int answer_arp(struct __sk_buff *ctx)
{
	struct arp_frame *frame = pull_head(ctx, sizeof(*frame));
	union ip_addr target;
	__be32 asked_for;

	if (!frame)
		return -DROP_TRUNCATED;
	if (frame->hardware != bpf_htons(ARP_ETHERNET) || frame->protocol != bpf_htons(ETH_P_IP) ||
	    frame->hardware_length != sizeof(frame->target_mac) ||
	    frame->protocol_length != sizeof(frame->target))
		return -DROP_BAD_HEADER;

	asked_for = frame->target;
	map_ip4(&target, asked_for);
	if (frame->operation != bpf_htons(ARP_REQUEST) || frame->sender == asked_for ||
	    lookup_endpoint_behind(ctx->ifindex, &target))
		return -DROP_UNANSWERED_PROBE;

	frame->operation = bpf_htons(ARP_REPLY);
	copy_mac(frame->target_mac, frame->sender_mac);
	frame->target = frame->sender;
	copy_mac(frame->sender_mac, config.gateway_mac);
	frame->sender = asked_for;
	copy_mac(frame->eth.h_dest, frame->eth.h_source);
	copy_mac(frame->eth.h_source, config.gateway_mac);
	return enter_pair(ctx, ctx->ifindex, PATH_ANSWER);
}

/* Solicitation and advertisement look the same, RFC 4861 4.3 and 4.4. */
struct nd_packet {
	struct ipv6hdr ip6;
	struct icmp6hdr icmp6;
	struct in6_addr target;
	__u8 option_type;
	__u8 option_length; /* in units of 8 bytes */
	__u8 option_mac[ETH_ALEN];
};

#define ND_WITHOUT_OPTION offsetof(struct nd_packet, option_type)
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_TARGET_MAC 2
#define ND_HOP_LIMIT 255 /* shows that no router forwarded it */

static __always_inline bool is_neighbour_solicitation(struct __sk_buff *ctx,
						      const struct packet *packet)
{
	__u8 type;

	if (packet->l4_proto != IPPROTO_ICMPV6 || is_mapped_ip4(&packet->dst) ||
	    bpf_skb_load_bytes(ctx, packet->l4_off, &type, sizeof(type)))
		return false;
	return type == ND_SOLICITATION;
}

static __noinline int answer_neighbour_solicitation(struct __sk_buff *ctx,
						    const struct packet *packet)
{
	struct nd_packet nd = {};
	union ip_addr target;
	int drop;

	if (packet->l3_length < ND_WITHOUT_OPTION)
		return -DROP_BAD_HEADER;
	if (bpf_skb_load_bytes(ctx, ETH_HLEN, &nd, ND_WITHOUT_OPTION))
		return -DROP_TRUNCATED;
	copy_ip6(&target, &nd.target);
	if (nd.ip6.hop_limit != ND_HOP_LIMIT || nd.icmp6.icmp6_code || is_multicast(&target) ||
	    is_mapped_ip4(&target))
		return -DROP_BAD_HEADER;
	if (is_unspecified(&packet->src) || lookup_endpoint_behind(ctx->ifindex, &target))
		return -DROP_UNANSWERED_PROBE;

	nd.ip6.daddr = nd.ip6.saddr;
	nd.ip6.saddr = nd.target;
	nd.ip6.payload_len = bpf_htons(sizeof(nd) - sizeof(nd.ip6));
	nd.icmp6.icmp6_type = ND_ADVERTISEMENT;
	nd.icmp6.icmp6_dataun.un_data32[0] = 0;
	nd.icmp6.icmp6_router = 1;
	nd.icmp6.icmp6_solicited = 1;
	nd.icmp6.icmp6_override = 1;
	nd.option_type = ND_TARGET_MAC;
	nd.option_length = 1;
	copy_mac(nd.option_mac, config.gateway_mac);
	nd.icmp6.icmp6_cksum = 0;
	nd.icmp6.icmp6_cksum = checksum_icmp6(&nd.ip6, sizeof(nd) - sizeof(nd.ip6));

	/* A solicitation may have no option, or several. */
	if (bpf_skb_change_tail(ctx, ETH_HLEN + sizeof(nd), 0) ||
	    bpf_skb_store_bytes(ctx, ETH_HLEN, &nd, sizeof(nd), 0))
		return -DROP_REWRITE_FAILED;
	drop = write_macs(ctx, packet->src_mac, config.gateway_mac);
	return drop ? drop : enter_pair(ctx, ctx->ifindex, PATH_ANSWER);
}
