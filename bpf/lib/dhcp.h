/* SPDX-License-Identifier: GPL-2.0-only */
/* DHCP for a pod that has no address yet (RFC 2131). Its broadcasts go to a server
 * or relay on the stack's device; the answers name the client's MAC.
 *
 * Only for pods whose IPAM is `dhcp`: for these, `endpoints` holds the link-local
 * address made of the pod's MAC.
 */
#pragma once

#include <linux/udp.h>

#include "endpoints.h"
#include "parse.h"

#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCP_ETHERNET 1

/* UDP, and RFC 2131 2 up to the client's hardware address. */
struct dhcp_head {
	struct udphdr udp;
	__u8 operation;
	__u8 hardware;
	__u8 hardware_length;
	__u8 hops;
	__be32 transaction;
	__be16 seconds;
	__be16 flags;
	__be32 addresses[4]; /* client, yours, server, relay */
	__u8 client_mac[ETH_ALEN];
} __attribute__((packed));

/* Modified EUI-64, RFC 4291 appendix A. */
static __always_inline void make_link_local(union ip_addr *addr, const __u8 *mac)
{
	addr->words[0] = bpf_htonl(0xfe800000);
	addr->words[1] = 0;
	__builtin_memcpy(&addr->bytes[8], mac, 3);
	addr->bytes[8] ^= 2;
	addr->bytes[11] = 0xff;
	addr->bytes[12] = 0xfe;
	__builtin_memcpy(&addr->bytes[13], mac + 3, 3);
}

/* The pod that sent or shall receive this DHCP message to `port`; else NULL. */
static __noinline struct endpoint *lookup_dhcp_client(struct __sk_buff *ctx,
						      const struct packet *packet, __u16 port)
{
	struct dhcp_head head;
	union ip_addr client;

	if (!is_ip4(packet) || is_fragment4(packet) || packet->l4_proto != IPPROTO_UDP ||
	    bpf_skb_load_bytes(ctx, packet->l4_off, &head, sizeof(head)))
		return NULL;
	if (head.udp.dest != bpf_htons(port) ||
	    head.udp.source != bpf_htons(DHCP_SERVER + DHCP_CLIENT - port) ||
	    head.hardware != DHCP_ETHERNET || head.hardware_length != ETH_ALEN)
		return NULL;
	make_link_local(&client, head.client_mac);
	return lookup_endpoint(&client);
}
