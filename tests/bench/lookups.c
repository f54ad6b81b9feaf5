// SPDX-License-Identifier: GPL-2.0-only
/* Ways to find the node that a pod address belongs to, each as a program that
 * does LOOKUPS of them, over addresses drawn at random from the first
 * `destinations` entries. `nothing` does all but the lookup. A program returns
 * how many were found.
 */
#include "types.h"
#include "remotes.h"

#define LOOKUPS 64
#define CLUSTER 0x0a800000 /* 10.128.0.0 */
#define CLUSTER_BITS 9
#define WORLD 0xc0000200 /* 192.0.2.0 */
#define CLUSTER6 0xfd000010 /* fd00:10::/32, a /64 per node */
#define POD 7
#define ENTRIES 16384

struct lpm4_key {
	__u32 prefixlen;
	__be32 addr;
};

struct cached {
	union ip_addr addr;
	union ip_addr vtep;
};

const volatile struct scene {
	__u32 destinations;
	__u32 host_bits; /* of an entry: 8 for nodes, 0 for pods, IPv4 */
	__u32 ip6;
	__u32 outside; /* ask for addresses that are in no map */
} scene SEC(".rodata");

static __u32 seed = 1;

#define MAP(name, kind, key_type, map_flag)        \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_##kind); \
		__uint(max_entries, ENTRIES);      \
		__uint(map_flags, map_flag);       \
		__type(key, key_type);             \
		__type(value, union ip_addr);      \
	} name SEC(".maps")

MAP(lpm_map, LPM_TRIE, struct remote_key, BPF_F_NO_PREALLOC);
MAP(lpm4_map, LPM_TRIE, struct lpm4_key, BPF_F_NO_PREALLOC);
MAP(hash_map, HASH, union ip_addr, 0);
MAP(hash4_map, HASH, __be32, 0);
MAP(array_map, ARRAY, __u32, 0);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cached);
} cache_map SEC(".maps");

/* xorshift32, Marsaglia 2003, and Lemire's reduction to a range */
static __always_inline __u32 draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return ((__u64)seed * scene.destinations) >> 32;
}

static __always_inline __u32 network_order(__u32 number)
{
	return bpf_htonl(number);
}

static __always_inline void draw_address(union ip_addr *addr)
{
	__u32 index = draw();

	if (scene.ip6) {
		addr->words[0] = network_order(CLUSTER6);
		addr->words[1] = network_order(index);
		addr->words[2] = 0;
		addr->words[3] = network_order(POD);
	} else {
		addr->words[0] = 0;
		addr->words[1] = 0;
		addr->words[2] = network_order(0xffff);
		addr->words[3] =
			network_order((scene.outside ? WORLD : CLUSTER) +
				      (index << scene.host_bits) + (scene.host_bits ? POD : 0));
	}
}

static __always_inline union ip_addr *find_lpm(const union ip_addr *addr)
{
	struct remote_key key = { .prefixlen = 128, .addr = *addr };

	return bpf_map_lookup_elem(&lpm_map, &key);
}

static __always_inline union ip_addr *find_lpm4(const union ip_addr *addr)
{
	struct lpm4_key key = { .prefixlen = 32, .addr = addr->words[3] };

	return bpf_map_lookup_elem(&lpm4_map, &key);
}

static __always_inline union ip_addr *find_hash(const union ip_addr *addr)
{
	union ip_addr key = *addr;

	if (scene.ip6)
		key.words[2] = key.words[3] = 0;
	else
		key.words[3] &= bpf_htonl(-1U << scene.host_bits);
	return bpf_map_lookup_elem(&hash_map, &key);
}

/* What bpf/ has. */
static __always_inline union ip_addr *find_remotes(const union ip_addr *addr)
{
	struct remote *remote = lookup_remote(addr);

	return remote ? &remote->vtep : NULL;
}

static __always_inline union ip_addr *find_hash4(const union ip_addr *addr)
{
	__be32 key = addr->words[3] & bpf_htonl(-1U << scene.host_bits);

	return bpf_map_lookup_elem(&hash4_map, &key);
}

static __always_inline union ip_addr *find_array(const union ip_addr *addr)
{
	__u32 index = bpf_ntohl(scene.ip6 ? addr->words[1] : addr->words[3]);

	if (!scene.ip6)
		index = (index & (-1U >> CLUSTER_BITS)) >> scene.host_bits;
	return bpf_map_lookup_elem(&array_map, &index);
}

static __always_inline union ip_addr *find_cached(const union ip_addr *addr)
{
	union ip_addr *found;
	struct cached *last;
	__u32 zero = 0;

	last = bpf_map_lookup_elem(&cache_map, &zero);
	if (!last)
		return NULL;
	if (last->addr.words[0] == addr->words[0] && last->addr.words[1] == addr->words[1] &&
	    last->addr.words[2] == addr->words[2] && last->addr.words[3] == addr->words[3])
		return &last->vtep;
	found = find_lpm(addr);
	if (found) {
		last->addr = *addr;
		last->vtep = *found;
	}
	return found;
}

static __always_inline union ip_addr *find_nothing(const union ip_addr *addr)
{
	return (union ip_addr *)addr;
}

#define PROGRAM(name)                               \
	SEC("tc")                                   \
	int do_##name(struct __sk_buff *ctx)        \
	{                                           \
		int found = 0;                      \
                                                    \
		(void)ctx;                          \
		for (int i = 0; i < LOOKUPS; i++) { \
			union ip_addr addr, *vtep;  \
                                                    \
			draw_address(&addr);        \
			barrier_var(addr.words[3]); \
			vtep = find_##name(&addr);  \
			if (vtep && vtep->words[3]) \
				found++;            \
		}                                   \
		return found;                       \
	}

PROGRAM(nothing)
PROGRAM(lpm)
PROGRAM(lpm4)
PROGRAM(hash)
PROGRAM(remotes)
PROGRAM(hash4)
PROGRAM(array)
PROGRAM(cached)

char LICENSE[] SEC("license") = "GPL";
