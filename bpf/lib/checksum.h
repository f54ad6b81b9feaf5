/* SPDX-License-Identifier: GPL-2.0-only */
/* Checksums, RFC 1071. */
#pragma once

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "types.h"

static __always_inline __u16 fold_checksum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Zero for a header that holds its own. */
static __always_inline __u16 checksum_ip4(const struct iphdr *ip4)
{
	const __u32 *words = (const void *)ip4;
	__u64 sum = 0;

	for (__u32 i = 0; i < sizeof(*ip4) / sizeof(*words); i++)
		sum += words[i];
	return fold_checksum(sum);
}

/* Of a multiple of 4 bytes. */
static __always_inline __u16 checksum_bytes(void *bytes, __u32 length, __u32 seed)
{
	return fold_checksum(bpf_csum_diff(NULL, 0, bytes, length, seed));
}

/* Over the `length` bytes behind the IPv6 header, and the pseudo header of RFC 8200
 * 8.1, whose addresses are right before them. Length and protocol are the seed.
 */
static __always_inline __u16 checksum_icmp6(struct ipv6hdr *ip6, __u32 length)
{
	return checksum_bytes(&ip6->saddr, length + 2 * sizeof(ip6->saddr),
			      bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6));
}
