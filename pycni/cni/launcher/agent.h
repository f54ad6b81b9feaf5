/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol between plugin and agent, as pycni/cni/plugin.py describes it. */
#ifndef PYCNI_AGENT_H
#define PYCNI_AGENT_H

#include "bytes.h"

/* A connection to an agent that has said HELLO; -1 and errno if there is none, or it is
 * busy, or of another protocol (EPROTO).
 */
int connect_agent(const char *path, int ms);

/* Begins a call; its stdin is what is put into it next, until `end_frame`. Returns where
 * stdin begins.
 */
size_t begin_frame(struct bytes *frame);
void end_frame(struct bytes *frame, size_t stdin_at);

/* Returns -1 if the agent cannot have acted on it. `netns` is -1 or the pod's. */
int send_call(int agent, const struct bytes *frame, int netns);

/* What it answers; the bytes stay valid. */
struct reply {
	int status;
	struct bytes out, err;
};

/* Returns -1 if there is no answer, or none that can be understood. */
int receive_reply(int agent, int ms, struct reply *reply);

#endif
