/* SPDX-License-Identifier: GPL-2.0-only */
/* Messages that neighbours on a link send each other, and routers to their hosts.
 * Between pods there is no link: none of them passes, wherever it is hidden. Who
 * takes one from a stranger sends its packets to the stranger.
 */
#pragma once

#include "upper.h"

#define ND_FIRST 133 /* router solicitation, RFC 4861 4.1 */
#define ND_LAST 137 /* redirect, RFC 4861 4.5 */
#define ICMP4_REDIRECT 5 /* RFC 792 */
#define ICMP4_ROUTER_ADVERTISEMENT 9 /* RFC 1256 */

static __always_inline bool is_of_neighbour(bool ip4, const struct upper *upper)
{
	__u8 type = upper->type;

	if (ip4)
		return upper->proto == IPPROTO_ICMP &&
		       (type == ICMP4_REDIRECT || type == ICMP4_ROUTER_ADVERTISEMENT);
	return upper->proto == IPPROTO_ICMPV6 && type >= ND_FIRST && type <= ND_LAST;
}

static __noinline int refuse_neighbour_message(struct __sk_buff *ctx, const struct packet *packet)
{
	struct upper upper = {};
	int drop = find_upper(ctx, packet, &upper);

	if (drop || !upper.present)
		return drop;
	return is_of_neighbour(is_ip4(packet), &upper) ? -DROP_NEIGHBOUR_MESSAGE : 0;
}

static __always_inline int check_messages(struct __sk_buff *ctx, const struct packet *packet)
{
	if (packet->l4_proto == IPPROTO_TCP || packet->l4_proto == IPPROTO_UDP)
		return 0;
	return refuse_neighbour_message(ctx, packet);
}
