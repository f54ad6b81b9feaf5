/* SPDX-License-Identifier: GPL-2.0-only */
/* Services: a packet to one goes on to an endpoint of it, and what the endpoint answers
 * comes back from the Service. Both happen on the client's node: here, in the
 * client's own program, and at every way into the client's pod (undo.h). All other nodes
 * only route.
 */
#pragma once

#include <linux/errno.h>

#include "config.h"
#include "flows.h"
#include "icmp_error.h"
#include "refuse.h"
#include "rewrite.h"
#include "services.h"

/* Another endpoint may be free where the answers of one are taken; after that,
 * another source port.
 */
#define ENDPOINT_TRIES 2
#define TRIES 6

/* Source ports of ours: none that Linux gives to sockets (ip_local_port_range), no
 * node port.
 */
#define OWN_PORTS 61000
#define OWN_PORTS_END 65536

static __always_inline __be16 draw_port(void)
{
	return bpf_htons(OWN_PORTS + bpf_get_prandom_u32() % (OWN_PORTS_END - OWN_PORTS));
}

/* A pod's kernel drops what comes from the pod's own address. So what a pod sends to
 * itself comes from the gateway, and from a port that the host's own connections to
 * pods do not have. SCTP's ports cannot be changed.
 */
static __always_inline void set_source(struct flow_key *to, bool other_port)
{
	if (same_address(&to->src, &to->dst)) {
		for (int i = 0; i < 4; i++)
			to->src.words[i] = is_mapped_ip4(&to->dst) ? config.gateway4.words[i] :
								     config.gateway6.words[i];
		other_port = true;
	}
	if (other_port && to->proto != IPPROTO_SCTP)
		to->sport = draw_port();
}

/* Writes both entries, that of the answers first: whoever finds the other can rely on
 * it. -EEXIST if another flow has those answers; or another CPU has just begun this
 * one, whose entry is then in `flows`. The two are built in one place, since the stack
 * is small.
 */
static __noinline int insert_flow(const struct flow_key *key, struct flow *flow, __u64 now)
{
	struct flow_key twin_key = {};
	struct flow *other;

	turn_round(&twin_key, &flow->to);
	turn_round(&flow->to, key);
	flow->flags ^= FLOW_REQUEST;
	if (bpf_map_update_elem(&flows, &twin_key, flow, BPF_NOEXIST)) {
		other = lookup_flow(&twin_key);
		if (other && !is_expired(other, now) && !is_closing(other) &&
		    !same_flow(&other->to, &flow->to))
			return -EEXIST;
		if (bpf_map_update_elem(&flows, &twin_key, flow, BPF_ANY))
			return -ENOMEM;
	}
	turn_round(&flow->to, &twin_key);
	flow->flags ^= FLOW_REQUEST;
	if (!bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST))
		return 0;
	other = lookup_flow(key);
	if (!other || !same_flow(&other->to, &flow->to))
		bpf_map_delete_elem(&flows, &twin_key);
	return -EEXIST;
}

/* `service` is NULL for a flow that keeps its destination. 0 if the flow is in `flows`
 * now.
 */
static __noinline int try_flow(const struct flow_key *key, const struct service *service, __u64 now,
			       __u32 attempt)
{
	struct flow flow = { .to = *key, .flags = FLOW_REQUEST };
	struct backend *backend;

	if (service) {
		flow.backend = choose_backend(service, &key->src, now);
		backend = lookup_backend(flow.backend);
		if (!backend || backend->service != service->id)
			return -ENOENT;
		flow.generation = backend->generation;
		flow.to.dst = backend->addr;
		flow.to.dport = backend->port;
	}
	set_source(&flow.to, !service || attempt >= ENDPOINT_TRIES);
	flow.expires = now + get_timeout(key->proto, flow.flags) * SECOND;
	if (insert_flow(key, &flow, now))
		return lookup_flow(key) ? 0 : -EEXIST;
	if (service && service->affinity)
		remember_backend(service, &key->src, flow.backend, flow.generation, now);
	return 0;
}

/* To an endpoint of the Service that has the destination, or, if none has, to that. */
static __noinline int begin_flow(struct __sk_buff *ctx, struct packet *packet,
				 const struct flow_key *key)
{
	struct service *service = lookup_service(key);
	__u64 now = bpf_ktime_get_ns();
	struct flow *flow;

	for (__u32 attempt = 0; attempt < TRIES; attempt++)
		if (!try_flow(key, service, now, attempt))
			break;
	flow = lookup_flow(key);
	return flow ? rewrite_packet(ctx, packet, key, &flow->to) : -DROP_NO_FLOW;
}

static __always_inline int reject(struct __sk_buff *ctx, const struct packet *packet,
				  enum drop_reason reason)
{
	return refuse_by_stack(ctx, packet, reason, config.reject_mark);
}

/* 0 for what no Service has, NOT_OURS for a new flow. Whose connection began before we
 * knew the Service is not cut: who forwarded it until now still does.
 */
static __noinline int enter_service(struct __sk_buff *ctx, const struct packet *packet,
				    const struct flow_key *key, __u8 tcp_flags)
{
	int fault;

	if (!is_service_address(&key->dst))
		return 0;
	if (key->proto == IPPROTO_TCP && !is_opening(key, tcp_flags))
		return 0;
	fault = find_fault(lookup_service(key));
	if (!fault)
		return NOT_OURS;
	return fault == DROP_NO_LOCAL_ENDPOINT ? -fault : reject(ctx, packet, fault);
}

/* A connection that a pod opens to an endpoint itself must not get its answers from a
 * Service, because an earlier one by way of the Service had the same ports. NOT_OURS if
 * it needs a flow for that.
 */
static __noinline int make_way(const struct flow_key *key)
{
	struct flow_key answer_key = {};
	struct flow *answer;

	turn_round(&answer_key, key);
	answer = lookup_flow(&answer_key);
	if (!answer)
		return 0;
	if (!is_expired(answer, bpf_ktime_get_ns()) && !is_closing(answer))
		return NOT_OURS;
	remove_flow(&answer_key, answer);
	return 0;
}

/* The flow is in `flows`. NOT_OURS if this is a new one with the same ports. A datagram
 * goes to another endpoint when its own is gone; a connection cannot.
 */
static __noinline int follow_flow(struct __sk_buff *ctx, struct packet *packet,
				  const struct flow_key *key, struct flow *flow, __u8 tcp_flags)
{
	__u64 now = bpf_ktime_get_ns();
	bool opening = is_opening(key, tcp_flags);
	bool stale = is_expired(flow, now) || (opening && is_closing(flow));

	if (!stale && flow->flags & FLOW_REQUEST && !is_backend_there(flow, opening)) {
		if (key->proto != IPPROTO_UDP && !opening)
			return reject(ctx, packet, DROP_BACKEND_GONE);
		stale = true;
	}
	if (stale) {
		remove_flow(key, flow);
		return NOT_OURS;
	}
	touch_flow(key, flow, tcp_flags, now);
	return rewrite_packet(ctx, packet, key, &flow->to);
}

/* Errors, and what else has no ports. Nobody has a Service's address, so nobody answers
 * an echo to it. The fragments of a datagram are not ours.
 */
static __always_inline int translate_icmp(struct __sk_buff *ctx, struct packet *packet)
{
	int drop;

	if (packet->l4_proto != IPPROTO_ICMP && packet->l4_proto != IPPROTO_ICMPV6)
		return 0;
	drop = translate_error(ctx, packet);
	if (drop)
		return drop;
	if (is_in_cluster(&packet->dst) || !is_service_address(&packet->dst))
		return 0;
	return reject(ctx, packet, DROP_UNKNOWN_PORT);
}

/* What a pod sends. 0: it goes on, to the destination that the packet has now. */
static __noinline int translate(struct __sk_buff *ctx, struct packet *packet)
{
	struct flow_key key = {};
	int verdict = NOT_OURS;
	struct flow *flow;
	__u8 tcp_flags;

	if (!read_flow(ctx, packet, &key, &tcp_flags))
		return translate_icmp(ctx, packet);
	flow = lookup_flow(&key);
	if (flow)
		verdict = follow_flow(ctx, packet, &key, flow, tcp_flags);
	if (verdict != NOT_OURS)
		return verdict;
	if (!is_in_cluster(&key.dst))
		verdict = enter_service(ctx, packet, &key, tcp_flags);
	else
		verdict = is_opening(&key, tcp_flags) ? make_way(&key) : 0;
	return verdict != NOT_OURS ? verdict : begin_flow(ctx, packet, &key);
}
