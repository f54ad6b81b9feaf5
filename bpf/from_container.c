// SPDX-License-Identifier: GPL-2.0-only
/* Everything a pod sends: tc ingress of its host veth, or the pod's end of its
 * netkit pair.
 */

#include "lib/types.h"
#include "lib/classify.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/dhcp.h"
#include "lib/encap.h"
#include "lib/endpoints.h"
#include "lib/forged.h"
#include "lib/messages.h"
#include "lib/mtu.h"
#include "lib/neighbour.h"
#include "lib/parse.h"
#include "lib/refuse.h"
#include "lib/too_big.h"
#include "lib/translate.h"
#include "lib/verdict.h"

/* Pod to pod goes to the stack when it is too big: the kernel routes it back to
 * the VXLAN device, finds it above the MTU of device or route, and fragments it or
 * answers with an ICMP error. A packet to a node's own address it would route out
 * of the uplink.
 *
 * The stack puts fragments together before it does so: where one of them may be too
 * big, it must get all of them.
 */
static __always_inline int send_to_other_node(struct __sk_buff *ctx, const struct packet *packet,
					      const struct route *route, enum destination dst)
{
	__u32 measured = measure_packet(ctx, packet);
	int verdict = -DROP_TOO_BIG;

	if (dst == REMOTE_POD && is_fragment(packet) && is_narrow(route->vtep))
		return hand_to_stack(ctx, packet);

	if (measured <= config.overlay_mtu)
		verdict = send_to_node(ctx, packet, route->vtep, measured, ANY_EXIT);
	if (verdict != -DROP_TOO_BIG)
		return verdict;
	if (dst == REMOTE_POD)
		return hand_to_stack(ctx, packet);
	return cut_or_answer(ctx, packet, route->vtep, measured);
}

static __always_inline int send_out_of_cluster(struct __sk_buff *ctx, const struct packet *packet,
					       const struct endpoint *source)
{
	if (source->flags & ENDPOINT_MASQUERADE)
		ctx->mark |= config.masquerade_mark;
	return hand_to_stack(ctx, packet);
}

/* Others put an ingress qdisc behind this program, and an ifb there limits the
 * rate. After that the host's stack receives the packet on the host end, and
 * routes it to the stack's device; but a packet to another node's own address out
 * of the uplink, where only this node's address may be its source.
 */
static __always_inline int leave_to_qdisc(struct __sk_buff *ctx, const struct endpoint *source,
					  enum destination dst)
{
	if (dst == OTHER_NODE || (dst == WORLD && source->flags & ENDPOINT_MASQUERADE))
		ctx->mark |= config.masquerade_mark;
	return went(PATH_QDISC, TC_ACT_UNSPEC);
}

/* A pod's link ends at this program. Of all that a pod sends to a group or to
 * everybody, only DHCP is forwarded; and nothing from a link-local address, though
 * `endpoints` holds that of a DHCP client. The stack receives a broadcast frame as
 * it is.
 */
static __noinline int send_in_scope(struct __sk_buff *ctx, const struct packet *packet)
{
	struct endpoint *client;

	if (packet->scope == SCOPE_LINK)
		return -DROP_LINK_LOCAL;
	client = lookup_dhcp_client(ctx, packet, DHCP_SERVER);
	if (!client || client->ifindex != ctx->ifindex || packet->dst.words[3] != 0xffffffff)
		return -DROP_MULTICAST;
	if (packet->src.words[3] && !lookup_endpoint_behind(ctx->ifindex, &packet->src))
		return -DROP_SPOOFED_SOURCE;
	if (!same_mac(client->mac, packet->src_mac))
		return -DROP_SPOOFED_MAC;
	return enter_stack();
}

/* To a cluster address that nobody has: the stack rejects it. */
static __always_inline int refuse_destination(struct __sk_buff *ctx, const struct packet *packet)
{
	if (!config.dead_end_mark || !is_in_cluster(&packet->dst))
		return -DROP_UNKNOWN_DESTINATION;
	return refuse_by_stack(ctx, packet, DROP_UNKNOWN_DESTINATION, config.dead_end_mark);
}

/* What goes to no pod leaves the pods' network: to a node, or to the world. */
static __always_inline int check_exit(struct __sk_buff *ctx, const struct packet *packet,
				      enum destination dst)
{
	switch (dst) {
	case NOBODY:
		return refuse_destination(ctx, packet);
	case LINK_LOCAL:
		return -DROP_LINK_LOCAL;
	case MARTIAN:
		return -DROP_MARTIAN;
	default:
		return packet->l4_proto == IPPROTO_TCP ? 0 : refuse_tunnel(ctx, packet);
	}
}

static __always_inline int route_packet(struct __sk_buff *ctx, const struct packet *packet,
					const struct endpoint *source)
{
	struct route route = {};
	enum destination dst = classify(&packet->dst, &route);

	if (dst != LOCAL_POD && dst != REMOTE_POD) {
		int verdict = check_exit(ctx, packet, dst);

		if (verdict)
			return verdict;
	}
	if (source->flags & ENDPOINT_QUEUED)
		return leave_to_qdisc(ctx, source, dst);

	switch (dst) {
	case LOCAL_POD:
		return deliver_to_pod(ctx, route.ep);
	case REMOTE_POD:
	case OTHER_NODE:
		return send_to_other_node(ctx, packet, &route, dst);
	case OWN_GATEWAY:
		return hand_to_stack(ctx, packet);
	default:
		return send_out_of_cluster(ctx, packet, source);
	}
}

static __always_inline int send_packet(struct __sk_buff *ctx)
{
	struct packet packet = {};
	struct endpoint *source;
	int drop;

	drop = parse_packet(ctx, &packet);
	if (drop)
		return is_arp(&packet) ? answer_arp(ctx) : drop;
	if (is_neighbour_solicitation(ctx, &packet))
		return answer_neighbour_solicitation(ctx, &packet);
	if (packet.scope)
		return send_in_scope(ctx, &packet);

	source = lookup_endpoint_behind(ctx->ifindex, &packet.src);
	if (!source)
		return -DROP_SPOOFED_SOURCE;
	if (!same_mac(source->mac, packet.src_mac))
		return -DROP_SPOOFED_MAC;
	drop = check_messages(ctx, &packet);
	if (!drop && config.services)
		drop = translate(ctx, &packet);
	return drop ? drop : route_packet(ctx, &packet, source);
}

SEC("tc")
int from_container(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_CONTAINER, send_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
