/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of both families as 16 bytes in network order. */
#pragma once

#include <linux/in6.h>

#include "types.h"

static __always_inline void map_ip4(union ip_addr *addr, __be32 ip4)
{
	addr->words[0] = 0;
	addr->words[1] = 0;
	addr->words[2] = bpf_htonl(0xffff);
	addr->words[3] = ip4;
}

static __always_inline void copy_ip6(union ip_addr *addr, const struct in6_addr *ip6)
{
	__builtin_memcpy(addr, ip6, sizeof(*addr));
}

static __always_inline bool is_mapped_ip4(const union ip_addr *addr)
{
	return !addr->words[0] && !addr->words[1] && addr->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_unspecified(const union ip_addr *addr)
{
	return !(addr->words[0] | addr->words[1] | addr->words[2] | addr->words[3]);
}

/* Multicast of both families, and 255.255.255.255. There is no broadcast address
 * of a subnet: pods have /32 addresses.
 */
static __always_inline bool is_multicast(const union ip_addr *addr)
{
	if (!is_mapped_ip4(addr))
		return addr->bytes[0] == 0xff;
	return (addr->bytes[12] & 0xf0) == 0xe0 || addr->words[3] == 0xffffffff;
}

static __always_inline bool is_loopback(const union ip_addr *addr)
{
	if (is_mapped_ip4(addr))
		return addr->bytes[12] == 127;
	return !addr->words[0] && !addr->words[1] && !addr->words[2] &&
	       addr->words[3] == bpf_htonl(1);
}

static __always_inline bool is_link_local4(const union ip_addr *addr)
{
	return (addr->words[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

static __always_inline bool is_link_local6(const union ip_addr *addr)
{
	return (addr->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* "This network" and the reserved 240/4 (RFC 6890 2.2.2). In IPv6, :: and all forms
 * of an IPv4 address in ::/32, of which the kernel uses none on a wire (RFC 4291
 * 2.5.5, RFC 2765 2.1).
 */
static __always_inline bool is_martian(const union ip_addr *addr)
{
	if (is_mapped_ip4(addr))
		return !addr->bytes[12] || addr->bytes[12] >= 240;
	return !addr->words[0];
}

/* volatile, because one side is often a constant of config.h */
static __always_inline bool same_address(const volatile union ip_addr *a,
					 const volatile union ip_addr *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] &&
	       a->words[2] == b->words[2] && a->words[3] == b->words[3];
}

/* The words from `first` on: those before are the same in both. */
static __always_inline bool is_in_prefix(const union ip_addr *addr,
					 const volatile struct prefix *prefix, int first)
{
	for (int i = first; i < 4; i++)
		if ((addr->words[i] & prefix->mask.words[i]) != prefix->addr.words[i])
			return false;
	return true;
}
