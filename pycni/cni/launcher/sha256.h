/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4). */
#ifndef PYCNI_SHA256_H
#define PYCNI_SHA256_H

#include <stddef.h>

#define DIGITS 32 /* of the hash, as much as pycni uses of it */

/* The first DIGITS hexadecimal digits, and a NUL. */
void sha256_digits(const void *data, size_t len, char digits[DIGITS + 1]);

#endif
