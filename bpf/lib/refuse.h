/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets that the stack ends for us, with an answer to the sender. */
#pragma once

#include "deliver.h"

/* It is counted as dropped here; the stack, which has a rule for this mark, drops it
 * and may answer, at its own rate.
 */
static __noinline int refuse_by_stack(struct __sk_buff *ctx, const struct packet *packet,
				      enum drop_reason reason, __u32 mark)
{
	int verdict;

	drop_packet(ctx, FROM_CONTAINER, reason);
	ctx->mark = mark;
	verdict = hand_to_stack(ctx, packet);
	return verdict < 0 ? verdict : went(PATH_NONE, verdict);
}
