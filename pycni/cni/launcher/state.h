/* SPDX-License-Identifier: Apache-2.0 */
/* STATUS without an agent. An agent that restarts is no failure: a node whose STATUS
 * fails has all its pods taken for unready at once. One that stays away is: without it,
 * no pod can be added.
 */
#ifndef PYCNI_STATE_H
#define PYCNI_STATE_H

#include "paths.h"

/* An agent has answered. */
void note_presence(const struct paths *paths);

/* Returns if pods reach each other and an agent may be about to come back; else refuses
 * the call.
 */
void check_state(const struct paths *paths);

#endif
