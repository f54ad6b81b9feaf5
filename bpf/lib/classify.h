/* SPDX-License-Identifier: GPL-2.0-only */
/* Whose address a destination is: the one routing decision, for all programs.
 *
 * What must choose another destination, as a Service does, belongs right before
 * classify(); what depends on the answer, as a rule about who may reach whom,
 * right after it.
 */
#pragma once

#include "config.h"
#include "endpoints.h"
#include "nodes.h"
#include "remotes.h"

enum destination {
	LOCAL_POD, /* a pod of this node: route.ep */
	REMOTE_POD, /* a pod or the gateway of another node: route.vtep */
	OTHER_NODE, /* an address of another node itself: route.vtep */
	OWN_GATEWAY, /* the gateway of this node's pods */
	NOBODY, /* an address of the cluster that nobody has, or loopback */
	WORLD, /* everything else, this node's own address included */
	LINK_LOCAL, /* a link-local address that pods may not reach */
	MARTIAN, /* an address that no packet may go to */
};

struct route {
	const struct endpoint *ep;
	const union ip_addr *vtep;
};

/* Pods may reach services of their node that have a link-local address, if the
 * settings name it: a cloud's metadata, a DNS cache.
 */
static __always_inline bool is_open_link_local(const union ip_addr *addr)
{
	for (int i = 0; i < 4; i++)
		if (addr->words[3] == config.link_local[i])
			return true;
	return false;
}

/* The stack's device routes loopback addresses, for the host's own connections to
 * host ports: a pod's packet must not get that far.
 */
static __always_inline enum destination classify_elsewhere(const union ip_addr *dst)
{
	if (is_in_cluster(dst) || is_loopback(dst))
		return NOBODY;
	if (is_martian(dst))
		return MARTIAN;
	if (is_mapped_ip4(dst) && is_link_local4(dst))
		return is_open_link_local(dst) ? WORLD : LINK_LOCAL;
	return WORLD;
}

/* As far as this node knows without others: LOCAL_POD, OWN_GATEWAY or NOBODY. */
static __always_inline enum destination classify_here(const union ip_addr *dst, struct route *route)
{
	route->ep = lookup_endpoint(dst);
	if (route->ep)
		return LOCAL_POD;
	return is_own_gateway(dst) ? OWN_GATEWAY : NOBODY;
}

/* In the order of fewest lookups. No pod here has an address of another node's
 * pod CIDR, so those go first; addresses that nodes published one by one are few.
 */
static __always_inline enum destination classify(const union ip_addr *dst, struct route *route)
{
	struct remote *remote = NULL;
	enum destination here;
	struct node *node;

	if (!is_of_this_node(dst))
		remote = lookup_remote_node(dst);
	if (!remote) {
		here = classify_here(dst, route);
		if (here != NOBODY)
			return here;
		remote = lookup_remote_address(dst);
	}
	if (remote) {
		route->vtep = &remote->vtep;
		return REMOTE_POD;
	}
	node = lookup_node(dst);
	if (node && !is_own_vtep(&node->vtep)) {
		route->vtep = &node->vtep;
		return OTHER_NODE;
	}
	return classify_elsewhere(dst);
}
