/* SPDX-License-Identifier: GPL-2.0-only */
/* What a step decides about a packet, in one int:
 *
 *   -DROP_*              the packet ends here
 *   went(path, action)   the way it takes, and the TC action for that
 *   NOT_OURS             the step changed nothing: the caller tries the next way
 *
 * A step that only checks or writes returns -DROP_*, or 0 for "go on". The entry
 * program hands its verdict to settle_verdict(), the one place that counts.
 */
#pragma once

#include <linux/pkt_cls.h>

#include "drop.h"
#include "forwarded.h"

#define PATH_SHIFT 8
#define ACTION_MASK 0xff

static __always_inline int went(enum packet_path path, int action)
{
	return (int)path << PATH_SHIFT | (action & ACTION_MASK);
}

/* Out of an interface. The redirect helpers refuse only flags that they do not know,
 * so what they return is always TC_ACT_REDIRECT.
 */
static __always_inline int leave_by(__u32 ifindex, enum packet_path path)
{
	bpf_redirect(ifindex, 0);
	return went(path, TC_ACT_REDIRECT);
}

/* Differs from every TC action and drop reason. An entry program that returns it
 * leaves the packet to other people's filters, uncounted.
 */
#define NOT_OURS went(PATH_NONE, TC_ACT_UNSPEC)

/* BTF holds only the types of variables. These are here for readers of pinned
 * maps, who find the names of all numbers in it.
 */
const volatile struct {
	enum attach_point point;
	enum packet_path path;
	enum drop_reason reason;
	enum endpoint_flag flag;
	enum event_kind kind;
	struct drop_event event;
} described SEC(".rodata");

/* Every packet passes here once in each program that sees it. */
static __always_inline int settle_verdict(struct __sk_buff *ctx, enum attach_point point,
					  int verdict)
{
	if (verdict < 0)
		return drop_packet(ctx, point, -verdict);
	if (verdict >> PATH_SHIFT != PATH_NONE)
		count_forwarded(ctx, point, verdict >> PATH_SHIFT);
	return (__s8)verdict; /* TC_ACT_UNSPEC is -1 */
}
