// SPDX-License-Identifier: GPL-2.0-only
/* tc ingress of each pod's host veth, or the pod's end of its netkit pair:
 * everything a pod sends.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/dhcp.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/endpoints.h"
#include "lib/mtu.h"
#include "lib/neighbour.h"
#include "lib/nexthops.h"
#include "lib/parse.h"
#include "lib/remotes.h"
#include "lib/self.h"
#include "lib/vteps.h"

/* To the pod whose node is `remote`, or, without one, to a node's own address.
 * Pod to pod goes to the stack when it is too big: the kernel routes it back
 * to the overlay device, finds it above that device's MTU and fragments it
 * or answers with an ICMP error. A node's own address it would route past the
 * overlay.
 */
static __always_inline int send_to_other_node(struct __sk_buff *ctx,
					      const struct packet *packet,
					      const struct remote *remote)
{
	__u32 measured = measure_packet(ctx, packet);

	if (measured <= config.overlay_mtu)
		return encap_and_redirect(
			ctx, packet, remote ? &remote->vtep : &packet->dst,
			measured);
	return remote ? hand_to_stack(ctx, packet) : -DROP_TOO_BIG;
}

static __always_inline int send_out_of_cluster(struct __sk_buff *ctx,
					       const struct packet *packet,
					       const struct endpoint *source)
{
	if (source->flags & ENDPOINT_MASQUERADE)
		ctx->mark |= config.masquerade_mark;
	return hand_to_stack(ctx, packet);
}

/* To the ingress qdisc that another has put behind us: an ifb limits the rate,
 * and the host's stack gets the packet as come in on the veth. Its routes lead
 * to the overlay device, but for a node's own address, which only a node may
 * send to by the underlay.
 */
static __always_inline int leave_to_qdisc(struct __sk_buff *ctx,
					  const struct packet *packet,
					  const struct endpoint *source)
{
	const union ip_addr *dst = &packet->dst;

	if (lookup_endpoint(dst) || lookup_remote(dst) || is_own_gateway(dst))
		return TC_ACT_UNSPEC;
	if (is_known_vtep(dst)) {
		ctx->mark |= config.masquerade_mark;
		return TC_ACT_UNSPEC;
	}
	if (is_in_cluster(dst) || is_loopback(dst))
		return -DROP_UNKNOWN_DESTINATION;
	if (source->flags & ENDPOINT_MASQUERADE)
		ctx->mark |= config.masquerade_mark;
	return TC_ACT_UNSPEC;
}

/* Nothing else of a pod goes to all. The stack takes a broadcast as it is. */
static __always_inline int send_to_all(struct __sk_buff *ctx,
				       const struct packet *packet)
{
	struct endpoint *client = lookup_dhcp_client(ctx, packet, DHCP_SERVER);

	if (!client || client->ifindex != ctx->ifindex ||
	    packet->dst.words[3] != 0xffffffff)
		return -DROP_MULTICAST;
	if (packet->src.words[3] &&
	    !lookup_endpoint_behind(ctx->ifindex, &packet->src))
		return -DROP_SPOOFED_SOURCE;
	if (!same_mac(client->mac, packet->src_mac))
		return -DROP_SPOOFED_MAC;
	return bpf_redirect(config.overlay_ifindex, BPF_F_INGRESS);
}

/* The overlay device routes loopback addresses, for the host's own connections
 * to host ports: what a pod sends to one must not get that far.
 */
static __always_inline int route_packet(struct __sk_buff *ctx)
{
	struct endpoint *source, *ep;
	struct remote *remote = NULL;
	struct packet packet = {};
	int drop;

	if (is_arp(ctx))
		return answer_arp(ctx);
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	if (is_neighbour_solicitation(ctx, &packet))
		return answer_neighbour_solicitation(ctx, &packet);
	if (packet.multicast)
		return send_to_all(ctx, &packet);

	source = lookup_endpoint_behind(ctx->ifindex, &packet.src);
	if (!source)
		return -DROP_SPOOFED_SOURCE;
	if (!same_mac(source->mac, packet.src_mac))
		return -DROP_SPOOFED_MAC;
	if (source->flags & ENDPOINT_QUEUED)
		return leave_to_qdisc(ctx, &packet, source);

	/* Nobody here has an address of another node's pod CIDR. */
	if (!is_of_this_node(&packet.dst))
		remote = lookup_remote_node(&packet.dst);
	if (!remote) {
		ep = lookup_endpoint(&packet.dst);
		if (ep)
			return deliver_local(ctx, ep);
		remote = lookup_remote_address(&packet.dst);
	}
	if (remote || is_known_vtep(&packet.dst))
		return send_to_other_node(ctx, &packet, remote);
	if (is_own_gateway(&packet.dst))
		return hand_to_stack(ctx, &packet);
	if (is_in_cluster(&packet.dst) || is_loopback(&packet.dst))
		return -DROP_UNKNOWN_DESTINATION;
	return send_out_of_cluster(ctx, &packet, source);
}

SEC("tc")
int from_container(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_CONTAINER, route_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
