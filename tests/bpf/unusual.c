// SPDX-License-Identifier: GPL-2.0-only
/* Packets that BPF_PROG_TEST_RUN does not take, but pods can send: made of one
 * that it takes, then passed on to the program under test.
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NOT_MADE (-100)
#define SOME_VLAN 5

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} goes_on SEC(".maps");

/* Without a whole IP header: cut to the length in its priority. */
SEC("tc")
int cut(struct __sk_buff *ctx)
{
	if (!bpf_skb_change_tail(ctx, ctx->priority, 0))
		bpf_tail_call(ctx, &goes_on, 0);
	return NOT_MADE;
}

/* With a VLAN tag where the kernel keeps it, outside of the bytes. */
SEC("tc")
int tag(struct __sk_buff *ctx)
{
	if (!bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), SOME_VLAN))
		bpf_tail_call(ctx, &goes_on, 0);
	return NOT_MADE;
}

/* With other bytes than its skb->protocol says, as a pod may send on netkit: what
 * the bytes are is in its priority.
 */
SEC("tc")
int lie(struct __sk_buff *ctx)
{
	__be16 proto = bpf_htons(ctx->priority);

	if (!bpf_skb_store_bytes(ctx, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto), 0))
		bpf_tail_call(ctx, &goes_on, 0);
	return NOT_MADE;
}

char LICENSE[] SEC("license") = "GPL";
