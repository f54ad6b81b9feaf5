/* SPDX-License-Identifier: Apache-2.0 */
/* What this program itself tells the runtime. */
#ifndef PYCNI_ANSWER_H
#define PYCNI_ANSWER_H

#include <stddef.h>

/* CNI spec, section 5 "Error"; pycni/errors.py has the same. */
enum code {
	INCOMPATIBLE_VERSION = 1,
	INVALID_PARAMETER = 4,
	FILE_ERROR = 5,
	DECODING_ERROR = 6,
	INVALID_CONFIG = 7,
	TRY_AGAIN = 11,
	NOT_AVAILABLE = 50,
	LIMITED_CONNECTIVITY = 51,
};

/* All that this program speaks, oldest first, then NULL. */
extern const char *const versions[];

/* The place of a version among `versions`, or -1. */
int version_number(const char *text, size_t len);

/* From now on, errors are of this version of the specification. */
void answer_in(int version);

/* One error object on stdout, and exit 1. `details` is a format. Neither text may
 * have a phrase that containerd takes for success (errors.py, SWALLOWED): so an
 * errno is told as a number.
 */
_Noreturn void refuse(enum code code, const char *msg, const char *details, ...)
	__attribute__((format(printf, 3, 4)));

/* The answer to VERSION, and exit 0. */
_Noreturn void tell_versions(void);

/* Who this is, on stderr, and exit 0: somebody ran it by hand. */
_Noreturn void tell_about(void);

#endif
