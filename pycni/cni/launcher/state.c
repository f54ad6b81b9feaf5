// SPDX-License-Identifier: Apache-2.0
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "bytes.h"
#include "rtnl.h"

#define DIGITS_MAX 20

/* What a look at all links finds. */
struct seen {
	bool has_device, is_up, has_pods;
};

static char *join(const char *directory, const char *name)
{
	struct bytes path = {};

	put_text(&path, directory);
	put(&path, name, strlen(name) + 1);
	return path.at;
}

static void look_at(const struct link *link, void *context)
{
	struct seen *seen = context;

	if (!strcmp(link->name, DEVICE)) {
		seen->has_device = true;
		seen->is_up = link->is_up;
	}
	if (!strncmp(link->name, NAME_HEAD, strlen(NAME_HEAD)))
		seen->has_pods = true;
}

static bool is_pinned(const char *pins)
{
	struct statfs about;

	return !statfs(pins, &about) && (unsigned int)about.f_type == BPF_FS_MAGIC &&
	       !access(join(pins, "/maps/endpoints"), F_OK) &&
	       !access(join(pins, "/programs/"), F_OK);
}

/* Whole seconds since the boot; they go on while the machine sleeps. */
static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_BOOTTIME, &time);
	return time.tv_sec;
}

static long long read_seconds(int file)
{
	char text[DIGITS_MAX + 1] = {};

	if (read(file, text, DIGITS_MAX) <= 0)
		return now(); /* somebody is about to write it */
	return strtoll(text, NULL, 10);
}

/* How long no agent has answered, as far as it was noticed: the first to notice leaves a
 * note. 0 if none can be left.
 */
static long long seconds_away(const char *run_dir)
{
	const char *path = join(run_dir, "/" AWAY_NAME);
	char text[DIGITS_MAX + 1];
	long long since = now();
	int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (file >= 0) {
		snprintf(text, sizeof(text), "%lld", since);
		write_all(file, text, strlen(text));
		close(file);
		return 0;
	}
	file = errno == EEXIST ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (file < 0)
		return 0;
	since = read_seconds(file);
	close(file);
	return since < 0 ? 0 : now() - since;
}

void note_presence(const struct paths *paths)
{
	unlink(join(paths->run_dir, "/" AWAY_NAME));
}

void check_state(const struct paths *paths)
{
	struct seen seen = {};
	long long away = seconds_away(paths->run_dir);
	enum code code = NOT_AVAILABLE;

	if (visit_links(NULL, look_at, &seen))
		refuse(FILE_ERROR, "the node's links cannot be listed", "errno %d", errno);
	if (seen.has_pods)
		code = LIMITED_CONNECTIVITY;
	if (!is_pinned(paths->pins))
		refuse(code, "no dataplane is loaded on this node",
		       "nothing is pinned in %s, and no agent answers at %s; "
		       "see why pycni's agent does not run",
		       paths->pins, paths->socket);
	if (!seen.has_device || !seen.is_up)
		refuse(code, "the device " DEVICE " is missing or down",
		       "no agent answers at %s that would mend it; see why "
		       "pycni's agent does not run",
		       paths->socket);
	if (away > AWAY_SECONDS)
		refuse(NOT_AVAILABLE, "no pod can be added: pycni's agent does not run",
		       "none has answered at %s for %lld s; see why pycni's "
		       "agent does not run",
		       paths->socket, away);
}
