// SPDX-License-Identifier: Apache-2.0
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "bytes.h"
#include "sha256.h"

#define POLL_MS 10

static char *path_of(const char *run_dir, const char *digest)
{
	struct bytes path = {};
	char digits[DIGITS + 1];

	sha256_digits(digest, strlen(digest), digits);
	put_text(&path, run_dir);
	put_text(&path, "/locks/attachment-");
	put_text(&path, digits);
	put(&path, ".lock", 6);
	return path.at;
}

static void wait_for(int file)
{
	const struct timespec nap = { .tv_nsec = POLL_MS * 1000000L };

	for (int left = LOCK_MS; flock(file, LOCK_EX | LOCK_NB); left -= POLL_MS) {
		if (left <= 0 || (errno != EWOULDBLOCK && errno != EINTR))
			refuse(TRY_AGAIN, "another process works on the attachment",
			       "errno %d; try again when it is done", errno);
		nanosleep(&nap, NULL);
	}
}

/* Who holds the lock, for the messages of those who wait. */
static void write_holder(int file, const char *holder)
{
	if (!ftruncate(file, 0))
		write_all(file, holder, strlen(holder));
}

struct lock lock_attachment(const char *run_dir, const char *digest)
{
	struct lock lock = { -1, path_of(run_dir, digest) };
	char holder[16];
	struct stat about;

	for (;;) {
		lock.file = open(lock.path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (lock.file < 0)
			return lock; /* the directory is missing or read-only */
		wait_for(lock.file);
		if (!fstat(lock.file, &about) && about.st_nlink)
			break;
		close(lock.file); /* its last holder has unlinked it */
	}
	snprintf(holder, sizeof(holder), "%d", getpid());
	write_holder(lock.file, holder);
	return lock;
}

void unlock(struct lock *lock)
{
	if (lock->file < 0)
		return;
	unlink(lock->path);
	close(lock->file);
	lock->file = -1;
}
