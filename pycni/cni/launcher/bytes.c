// SPDX-License-Identifier: Apache-2.0
#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"

#define PIECE 65536

void reserve(struct bytes *to, size_t len)
{
	char *at;

	if (to->at && to->len + len <= to->room)
		return;
	to->room = 2 * to->room + len;
	at = realloc(to->at, to->room);
	if (!at)
		refuse(TRY_AGAIN, "out of memory", "try again");
	to->at = at;
}

void put(struct bytes *to, const void *from, size_t len)
{
	reserve(to, len);
	memcpy(to->at + to->len, from, len);
	to->len += len;
}

void put_text(struct bytes *to, const char *text)
{
	put(to, text, strlen(text));
}

int write_all(int fd, const char *at, size_t len)
{
	while (len) {
		ssize_t sent = write(fd, at, len);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -1;
		at += sent;
		len -= sent;
	}
	return 0;
}

int put_file(struct bytes *to, int fd, size_t limit)
{
	size_t left = limit + 1;
	ssize_t got;

	do {
		size_t piece = left < PIECE ? left : PIECE;

		reserve(to, piece);
		do
			got = read(fd, to->at + to->len, piece);
		while (got < 0 && errno == EINTR);
		if (got < 0)
			return -1;
		to->len += got;
		left -= got;
	} while (got && left);
	return 0;
}
