/* SPDX-License-Identifier: Apache-2.0 */
/* One call: the CNI_* variables and the head of stdin, checked in the order of
 * pycni/attachments/dispatch.py.
 */
#ifndef PYCNI_CALL_H
#define PYCNI_CALL_H

#include "bytes.h"
#include "json.h"

struct command {
	const char *name;
	int hello_ms; /* until the agent says HELLO */
	int reply_ms; /* until it answers */
	int since; /* of `versions` */
	bool of_pod; /* needs a container ID and an interface name */
	bool in_pod; /* needs a network namespace */
};

/* The command that the runtime asks for; one without a name if pycni does not know it. */
const struct command *find_command(void);

/* Refuses a call without what it needs. */
void check_environment(const struct command *command);

/* The head of the configuration; refuses one that DEL could not work with, either. */
struct head check_configuration(const struct bytes *in, const struct command *command);

/* A variable of the runtime's; "" if it is not set. */
const char *variable(const char *name);

#endif
