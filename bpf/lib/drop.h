/* SPDX-License-Identifier: GPL-2.0-only */
/* Where every packet that goes no further is counted, and some are shown. */
#ifndef PYCNI_DROP_H
#define PYCNI_DROP_H

#include <linux/pkt_cls.h>

#include "config.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ATTACH_POINTS * DROP_REASONS);
	__type(key, __u32);
	__type(value, struct drop_count);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

_Static_assert((EVENT_HEAD & (EVENT_HEAD - 1)) == 0, "a power of two");

/* BTF holds the types of variables. These are here to be found in it by the
 * agent, which knows no number of a reason by itself.
 */
const volatile struct {
	enum attach_point point;
	enum drop_reason reason;
	struct drop_event event;
} described SEC(".rodata");

static __always_inline void send_event(struct __sk_buff *ctx, __u8 point,
				       __u8 reason)
{
	struct drop_event *event;
	__u32 head_length;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) /* full: the counter still has it */
		return;

	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = bpf_ktime_get_ns();
	event->ifindex = ctx->ifindex;
	event->length = ctx->len;
	event->point = point;
	event->reason = reason;

	/* 1 to EVENT_HEAD by arithmetic. What a comparison tells the verifier is
	 * lost where the compiler compares one copy and passes another, and
	 * before 6.8 "!= 0" tells it nothing at all.
	 */
	head_length = ctx->len;
	if (head_length > EVENT_HEAD)
		head_length = EVENT_HEAD;
	barrier_var(head_length);
	head_length = ((head_length - 1) & (EVENT_HEAD - 1)) + 1;
	if (!bpf_skb_load_bytes(ctx, 0, event->head, head_length))
		event->head_length = head_length;
	bpf_ringbuf_submit(event, 0);
}

/* Every entry program ends here: passes a TC action on, and turns -DROP_*
 * into a count, now and then an event, and the end of the packet.
 */
static __always_inline int settle_verdict(struct __sk_buff *ctx,
					  enum attach_point point, int verdict)
{
	struct drop_count *count;
	__u32 index;

	if (verdict > -DROP_TRUNCATED)
		return verdict;

	index = point * DROP_REASONS + -verdict;
	count = bpf_map_lookup_elem(&drops, &index);
	if (count) {
		if (!(count->packets & config.event_mask))
			send_event(ctx, point, -verdict);
		count->packets++;
		count->bytes += ctx->len;
	}
	return TC_ACT_SHOT;
}

#endif
