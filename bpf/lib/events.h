/* SPDX-License-Identifier: GPL-2.0-only */
/* events: what happened to single packets, for a reader in user space */
#pragma once

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

_Static_assert((EVENT_HEAD & (EVENT_HEAD - 1)) == 0, "a power of two");

static __noinline void send_drop_event(struct __sk_buff *ctx, __u8 point, __u8 reason)
{
	struct drop_event *drop;
	__u32 head_length;

	drop = bpf_ringbuf_reserve(&events, sizeof(*drop), 0);
	if (!drop) /* the ring is full: the packet is counted all the same */
		return;

	__builtin_memset(drop, 0, sizeof(*drop));
	drop->event.kind = EVENT_DROP;
	drop->event.version = DROP_EVENT_VERSION;
	drop->event.length = sizeof(*drop);
	drop->time_ns = bpf_ktime_get_ns();
	drop->ifindex = ctx->ifindex;
	drop->length = ctx->len;
	drop->point = point;
	drop->reason = reason;

	/* 1 to EVENT_HEAD, by arithmetic. After a comparison, clang may compare
	 * one copy of the number and pass another, of which the verifier knows
	 * nothing; and before Linux 6.8 "!= 0" tells the verifier nothing at all.
	 */
	head_length = ctx->len;
	if (head_length > EVENT_HEAD)
		head_length = EVENT_HEAD;
	barrier_var(head_length);
	head_length = ((head_length - 1) & (EVENT_HEAD - 1)) + 1;
	if (!bpf_skb_load_bytes(ctx, 0, drop->head, head_length))
		drop->head_length = head_length;
	bpf_ringbuf_submit(drop, 0);
}
