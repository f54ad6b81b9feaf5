/* SPDX-License-Identifier: GPL-2.0-only */
/* Stands before a program under test (see dataplane.py) and watches helpers.
 *
 * BPF_PROG_TEST_RUN reports that a packet was redirected, but not where to: the
 * helpers keep that in a per-CPU variable. And its packets carry no tunnel
 * metadata. So the helpers below note their arguments, then do what they always
 * do; and before the first look at the metadata, some is given to the packet. What
 * the kernel's routes and neighbours say is made up: there are none.
 *
 * bpf_skb_get_tunnel_key() takes what bpf_skb_set_tunnel_key() wrote as if it
 * had come from a wire, the local address for the remote one: it asks for the
 * metadata of no direction. So the real helper runs in the program, and a
 * kernel that changes its mind about sizes or families fails a test here.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

enum helper {
	NO_HELPER,
	REDIRECT,
	REDIRECT_PEER,
	REDIRECT_NEIGH,
};

struct redirect_record {
	__u32 helper; /* enum helper */
	__u32 ifindex;
	__u64 flags;
	struct bpf_redir_neigh neighbour;
	__u32 pad;
};

/* What bpf_fib_lookup() answers, and what it was asked. */
struct fib_record {
	__s32 result;
	__u32 ifindex; /* 0: none was found */
	__u8 dmac[6];
	__u8 smac[6];
	__u32 gateway_family; /* 0: the destination is on the link */
	__u32 gateway[4];
	__u32 asked_ifindex;
	__u32 asked_flags;
};

struct tunnel_record {
	struct bpf_tunnel_key key;
	__u32 size; /* 0: no key; FAILS: reading it fails */
	__u64 flags; /* then the error */
};

#define FAILS 0xffffffff

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct redirect_record);
} last_redirect SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tunnel_record);
} last_tunnel SEC(".maps"), given_tunnel SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fib_record);
} given_fib SEC(".maps");

static __always_inline long record_redirect(__u32 helper, __u32 ifindex, __u64 flags)
{
	struct redirect_record record = { helper, ifindex, flags, {}, 0 };
	__u32 first = 0;

	bpf_map_update_elem(&last_redirect, &first, &record, BPF_ANY);
	if (helper == REDIRECT_PEER)
		return bpf_redirect_peer(ifindex, flags);
	return bpf_redirect(ifindex, flags);
}

static __always_inline long record_neigh(__u32 ifindex, struct bpf_redir_neigh *neighbour,
					 int length, __u64 flags)
{
	struct redirect_record record = { REDIRECT_NEIGH, ifindex, flags, *neighbour, 0 };
	__u32 first = 0;

	bpf_map_update_elem(&last_redirect, &first, &record, BPF_ANY);
	return bpf_redirect_neigh(ifindex, neighbour, length, flags);
}

static __always_inline long answer_fib(struct __sk_buff *ctx __attribute__((unused)),
				       struct bpf_fib_lookup *fib, __u32 flags)
{
	struct fib_record *given;
	__u32 first = 0;

	given = bpf_map_lookup_elem(&given_fib, &first);
	if (!given)
		return -EINVAL;
	given->asked_ifindex = fib->ifindex;
	given->asked_flags = flags;
	if (given->ifindex)
		fib->ifindex = given->ifindex;
	__builtin_memcpy(fib->dmac, given->dmac, sizeof(fib->dmac));
	__builtin_memcpy(fib->smac, given->smac, sizeof(fib->smac));
	if (given->gateway_family) {
		fib->family = given->gateway_family;
		__builtin_memcpy(fib->ipv6_dst, given->gateway, sizeof(fib->ipv6_dst));
	}
	return given->result;
}

static __always_inline long record_tunnel(struct __sk_buff *ctx, struct bpf_tunnel_key *key,
					  __u32 size, __u64 flags)
{
	struct tunnel_record record = {};
	__u32 first = 0;

	record.key = *key;
	record.size = size;
	record.flags = flags;
	bpf_map_update_elem(&last_tunnel, &first, &record, BPF_ANY);
	return bpf_skb_set_tunnel_key(ctx, key, size, flags);
}

/* Kernels before 6.0 take no local address to be read back. There the real
 * helper has nothing to say, and what it would have said comes from here.
 */
static __always_inline long read_given(const struct tunnel_record *given,
				       struct bpf_tunnel_key *key, __u64 flags)
{
	if ((given->flags ^ flags) & BPF_F_TUNINFO_IPV6)
		return -EPROTO;
	key->tunnel_id = given->key.tunnel_id;
	if (flags & BPF_F_TUNINFO_IPV6)
		__builtin_memcpy(key->remote_ipv6, given->key.local_ipv6, sizeof(key->remote_ipv6));
	else
		key->remote_ipv4 = given->key.local_ipv4;
	return 0;
}

static __always_inline long read_tunnel_key(struct __sk_buff *ctx, struct bpf_tunnel_key *key,
					    __u32 size, __u64 flags)
{
	struct tunnel_record *given;
	__u32 first = 0;

	given = bpf_map_lookup_elem(&given_tunnel, &first);
	if (given && given->size == FAILS)
		return -(long)given->flags;
	if (given && given->size &&
	    bpf_skb_set_tunnel_key(ctx, &given->key, sizeof(given->key), given->flags))
		return read_given(given, key, flags);
	return bpf_skb_get_tunnel_key(ctx, key, size, flags);
}

#define bpf_redirect(ifindex, flags) record_redirect(REDIRECT, ifindex, flags)
#define bpf_redirect_peer(ifindex, flags) record_redirect(REDIRECT_PEER, ifindex, flags)
#define bpf_redirect_neigh(ifindex, neighbour, length, flags) \
	record_neigh(ifindex, neighbour, length, flags)
#define bpf_fib_lookup(ctx, fib, length, flags) answer_fib(ctx, fib, flags)
#define bpf_skb_set_tunnel_key(ctx, key, size, flags) record_tunnel(ctx, key, size, flags)
#define bpf_skb_get_tunnel_key(ctx, key, size, flags) read_tunnel_key(ctx, key, size, flags)
