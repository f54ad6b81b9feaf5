/* SPDX-License-Identifier: GPL-2.0-only */
/* sockets: whom a socket of the host talks to, and what its process calls him */
#pragma once

#include <linux/errno.h>
#include <linux/in.h>

#include "config.h"
#include "services.h"

#define NO_SERVICE 1
#define TRIES 3 /* an endpoint may go between two lookups */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_key);
	__type(value, struct socket_peer);
} sockets SEC(".maps");

/* Pods' sockets are below the same control group, and other nodes' in a lab. */
static __always_inline bool is_of_host(struct bpf_sock_addr *ctx)
{
	return bpf_get_netns_cookie(ctx) ==
	       (config.netns ? config.netns : bpf_get_netns_cookie(NULL));
}

/* The kernel takes no access to a context by a computed address, and clang computes one for
 * neighbours. It knows nothing of a volatile's.
 */
static __always_inline volatile __u32 *ip6_of(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6;
}

/* `key` is of zeros. A program reads only the address of its own family. */
static __always_inline void read_peer(struct bpf_sock_addr *ctx, bool ip6, struct socket_key *key)
{
	key->cookie = bpf_get_socket_cookie(ctx);
	key->port = ctx->user_port;
	if (!ip6)
		return map_ip4(&key->addr, ctx->user_ip4);
	for (int i = 0; i < 4; i++)
		key->addr.words[i] = ip6_of(ctx)[i];
}

static __always_inline void write_peer(struct bpf_sock_addr *ctx, bool ip6,
				       const struct socket_peer *peer)
{
	ctx->user_port = peer->port;
	if (!ip6)
		ctx->user_ip4 = peer->addr.words[3];
	for (int i = 0; ip6 && i < 4; i++)
		ip6_of(ctx)[i] = peer->addr.words[i];
}

/* For what comes from an endpoint: the Service that the socket has called last. */
static __noinline int remember_service(const struct socket_key *key, const struct socket_peer *peer)
{
	struct socket_key there = { key->cookie, peer->addr, peer->port, {} };
	struct socket_peer *present = bpf_map_lookup_elem(&sockets, &there);
	struct socket_peer named = { key->addr, key->port, {}, peer->backend, peer->generation };

	if (present && same_address(&present->addr, &key->addr) && present->port == key->port &&
	    present->generation == peer->generation && present->backend == peer->backend)
		return 0;
	return bpf_map_update_elem(&sockets, &there, &named, BPF_ANY);
}

/* 0, or an errno, negative. An endpoint sees the gateway as the client, so affinity does. */
static __noinline int choose_peer(const struct socket_key *key, struct socket_peer *peer,
				  __u32 proto)
{
	struct flow_key to = { .dst = key->addr, .dport = key->port, .proto = proto };
	bool ip4 = is_mapped_ip4(&key->addr);
	__u64 now = bpf_ktime_get_ns();
	struct service *service;
	struct backend *backend;
	int fault;

	for (int i = 0; i < 4; i++)
		to.src.words[i] = ip4 ? config.gateway4.words[i] : config.gateway6.words[i];
	for (int i = 0; i < TRIES; i++) {
		service = lookup_service(&to);
		fault = find_fault(service);
		if (!service || fault)
			return fault == DROP_NO_LOCAL_ENDPOINT ? -EHOSTUNREACH : -ECONNREFUSED;
		peer->backend = choose_backend(service, &to.src, now);
		backend = lookup_backend(peer->backend);
		if (!backend || backend->service != service->id)
			continue;
		peer->addr = backend->addr;
		peer->port = backend->port;
		peer->generation = backend->generation;
		if (service->affinity)
			remember_backend(service, &to.src, peer->backend, peer->generation, now);
		return 0;
	}
	return -EHOSTUNREACH;
}

/* Datagrams of a socket that is not connected stay with one endpoint as long as it is there.
 * 0, NO_SERVICE, or an errno, negative.
 */
static __noinline int find_peer(const struct socket_key *key, struct socket_peer *peer, __u32 proto,
				bool connects)
{
	struct socket_peer *known;
	struct backend *backend;
	int error;

	if (!is_service_address(&key->addr)) {
		if (connects) /* it may have called a Service before, by the same endpoint */
			bpf_map_delete_elem(&sockets, key);
		return NO_SERVICE;
	}
	known = connects ? NULL : bpf_map_lookup_elem(&sockets, key);
	backend = known ? lookup_backend(known->backend) : NULL;
	if (known && backend && backend->generation == known->generation) {
		*peer = *known;
	} else {
		error = choose_peer(key, peer, proto);
		if (error)
			return error;
		if (!connects)
			bpf_map_update_elem(&sockets, key, peer, BPF_ANY);
	}
	remember_service(key, peer);
	return 0;
}
