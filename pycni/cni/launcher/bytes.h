/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that grow, and reading and writing all of something. */
#ifndef PYCNI_BYTES_H
#define PYCNI_BYTES_H

#include <stdbool.h>
#include <stddef.h>

struct bytes {
	char *at;
	size_t len, room;
};

/* They refuse the call if there is no memory. */
void reserve(struct bytes *to, size_t len);
void put(struct bytes *to, const void *from, size_t len);
void put_text(struct bytes *to, const char *text);

/* 0, or -1 and errno. */
int write_all(int fd, const char *at, size_t len);

/* Adds what can be read, to the end, but no more than one byte over `limit`. */
int put_file(struct bytes *to, int fd, size_t limit);

#endif
