/* SPDX-License-Identifier: Apache-2.0 */
/* The lock of one attachment, as pycni/locks.py has it. */
#ifndef PYCNI_LOCK_H
#define PYCNI_LOCK_H

struct lock {
	int file; /* -1: nobody can have it, so nobody needs it */
	char *path;
};

/* Refuses the call if somebody else has it for long. */
struct lock lock_attachment(const char *run_dir, const char *digest);
void unlock(struct lock *lock);

#endif
