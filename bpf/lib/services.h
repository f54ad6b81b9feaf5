/* SPDX-License-Identifier: GPL-2.0-only */
/* services, slots, backends, affinity: which endpoint a new flow to a Service gets */
#pragma once

#include "flows.h"

/* Where Services are off, each has room for one entry; setup makes them larger. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinity SEC(".maps");

/* Calls of their own, as the stack is small. */
static __noinline bool is_service_address(const union ip_addr *addr)
{
	struct frontend marker = { .addr = *addr };

	return bpf_map_lookup_elem(&services, &marker);
}

static __noinline struct service *lookup_service(const struct flow_key *key)
{
	struct frontend frontend = { .addr = key->dst, .port = key->dport, .proto = key->proto };

	return bpf_map_lookup_elem(&services, &frontend);
}

static __always_inline struct backend *lookup_backend(__u32 index)
{
	return bpf_map_lookup_elem(&backends, &index);
}

/* Whether the endpoint of a flow is still the one that it was. One that ends keeps its
 * flows; but a TCP connection that it did not answer yet may go elsewhere.
 */
static __always_inline bool is_backend_there(const struct flow *flow, bool opening)
{
	struct backend *backend;

	if (!flow->backend)
		return true;
	backend = lookup_backend(flow->backend);
	if (!backend || backend->generation != flow->generation)
		return false;
	return !opening || flow->flags & FLOW_ANSWERED || backend->flags;
}

static __always_inline bool is_local_only(const struct service *service)
{
	return service->flags & SERVICE_LOCAL;
}

static __always_inline __u32 count_endpoints(const struct service *service)
{
	return is_local_only(service) ? service->local_count : service->all_count;
}

/* The endpoint that the client had last, if it may still be chosen; else 0. */
static __noinline __u32 recall_backend(const struct service *service, const union ip_addr *client,
				       __u64 now)
{
	struct affinity_key key = { service->id, *client };
	struct affinity *last = bpf_map_lookup_elem(&affinity, &key);
	__u16 flag = is_local_only(service) ? BACKEND_LOCAL : BACKEND_ALL;
	struct backend *backend;

	if (!last || last->expires <= now)
		return 0;
	backend = lookup_backend(last->backend);
	if (!backend || backend->generation != last->generation || !(backend->flags & flag))
		return 0;
	return last->backend;
}

static __noinline void remember_backend(const struct service *service, const union ip_addr *client,
					__u32 backend, __u32 generation, __u64 now)
{
	struct affinity_key key = { service->id, *client };
	struct affinity last = {
		.expires = now + service->affinity * SECOND,
		.backend = backend,
		.generation = generation,
	};

	bpf_map_update_elem(&affinity, &key, &last, BPF_ANY);
}

/* Index of an endpoint by chance, all alike. 0 if there is none. */
static __always_inline __u32 draw_backend(const struct service *service)
{
	__u32 count = count_endpoints(service);
	__u32 index = is_local_only(service) ? service->local_base : service->all_base;
	struct slot *slot;

	if (!count)
		return 0;
	index += bpf_get_prandom_u32() % count;
	slot = bpf_map_lookup_elem(&slots, &index);
	return slot ? slot->backend : 0;
}

/* The endpoint of a new flow: that which the client had last, or one by chance. 0 if there
 * is none.
 */
static __always_inline __u32 choose_backend(const struct service *service,
					    const union ip_addr *client, __u64 now)
{
	__u32 recalled = service->affinity ? recall_backend(service, client, now) : 0;

	return recalled ? recalled : draw_backend(service);
}

/* Why a Service has no endpoint for a new flow; 0 if it has. */
static __always_inline int find_fault(const struct service *service)
{
	if (!service)
		return DROP_UNKNOWN_PORT;
	if (count_endpoints(service))
		return 0;
	return service->all_count ? DROP_NO_LOCAL_ENDPOINT : DROP_NO_ENDPOINT;
}
