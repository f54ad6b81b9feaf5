// SPDX-License-Identifier: GPL-2.0-only
/* Cuts a packet to the length in its priority, then goes on with the program
 * under test: BPF_PROG_TEST_RUN takes no IP packet without a whole IP header,
 * but pods can send one.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TC_ACT_NOT_CUT -100

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} goes_on SEC(".maps");

SEC("tc")
int cut(struct __sk_buff *ctx)
{
	if (!bpf_skb_change_tail(ctx, ctx->priority, 0))
		bpf_tail_call(ctx, &goes_on, 0);
	return TC_ACT_NOT_CUT;
}

char LICENSE[] SEC("license") = "GPL";
