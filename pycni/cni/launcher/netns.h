/* SPDX-License-Identifier: Apache-2.0 */
/* The pod's network namespace, if CNI_NETNS still leads to one. */
#ifndef PYCNI_NETNS_H
#define PYCNI_NETNS_H

#include <stdbool.h>

/* A descriptor, or -1. Namespaces are regular files: anything else is not opened. */
int open_netns(void);

/* Whether it is a network namespace that a pod may have: not the node's own, unless the
 * runtime says so.
 */
bool is_pods(int netns);

#endif
