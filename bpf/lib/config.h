/* SPDX-License-Identifier: GPL-2.0-only */
/* The constants of this node, and questions that they answer alone. The loader
 * writes them before it loads a program. So the verifier knows the values, and
 * removes code that they switch off.
 */
#pragma once

#include "address.h"

#define IDENTITY 19 /* bytes: 6 + 12, and a zero */

const volatile struct config config SEC(".rodata");

/* "pycni:<fingerprint>": tells our programs from others' at the same hook */
const volatile char identity[IDENTITY] SEC(".rodata");

static __always_inline bool is_own_gateway(const union ip_addr *addr)
{
	return same_address(addr, &config.gateway4) || same_address(addr, &config.gateway6);
}

/* Whether an address is in this node's pod CIDR: its first bits are those of the
 * gateway.
 */
static __always_inline bool is_of_this_node(const union ip_addr *addr)
{
	if (is_mapped_ip4(addr))
		return !((addr->words[3] ^ config.gateway4.words[3]) &
			 config.node_prefix4.addr.words[3]);
	for (int i = 0; i < 4; i++)
		if ((addr->words[i] ^ config.gateway6.words[i]) & config.node_prefix6.addr.words[i])
			return false;
	return true;
}

static __always_inline bool is_in_cluster(const union ip_addr *addr)
{
	if (is_mapped_ip4(addr)) /* word 2 tells whether the family is on */
		return is_in_prefix(addr, &config.cluster4, 2);
	return is_in_prefix(addr, &config.cluster6, 0);
}
