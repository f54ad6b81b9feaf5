/* SPDX-License-Identifier: Apache-2.0 */
/* DEL without an agent. The link goes, and with it the lease: what the kernel still has
 * of the pod then names a link that is gone, and by that a starting agent finds and
 * releases it (docs/leases.md).
 */
#ifndef PYCNI_DETACH_H
#define PYCNI_DETACH_H

#include "paths.h"

/* Returns when the link is gone; refuses the call if it cannot be removed. */
void detach(const struct paths *paths, const char *network);

#endif
