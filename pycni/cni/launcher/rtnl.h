/* SPDX-License-Identifier: Apache-2.0 */
/* What a DEL and a STATUS need of rtnetlink(7), in the calling thread's network
 * namespace. Functions return -1 and errno if the kernel refuses.
 */
#ifndef PYCNI_RTNL_H
#define PYCNI_RTNL_H

#include <stdbool.h>
#include <stddef.h>

#define ALIAS_ROOM 257 /* IFALIASZ and a NUL */

struct link {
	int index;
	bool is_up; /* by the administrator */
	char name[16];
	char kind[16];
	unsigned char mac[6];
	char alias[ALIAS_ROOM];
};

/* Shows all links, or the one with that name; some twice, if links change meanwhile. No
 * such link is no error.
 */
int visit_links(const char *name, void (*visit)(const struct link *link, void *context),
		void *context);

/* 0 also if it is gone already. */
int delete_link(int index);

/* The rule for packets from one address (AF_INET or AF_INET6); 0 also if there is
 * none.
 */
int delete_rule(int family, const void *address);

#endif
