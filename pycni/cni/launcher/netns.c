// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include "netns.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "call.h"

int open_netns(void)
{
	const char *path = variable("CNI_NETNS");
	struct stat about;

	if (!*path || stat(path, &about) || !S_ISREG(about.st_mode))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static bool may_be_own(void)
{
	const char *override = variable("CNI_NETNS_OVERRIDE");

	return !strcmp(override, "1") || !strcasecmp(override, "true");
}

bool is_pods(int netns)
{
	struct stat theirs, ours;

	if (netns < 0 || ioctl(netns, NS_GET_NSTYPE) != CLONE_NEWNET || fstat(netns, &theirs))
		return false;
	if (may_be_own())
		return true;
	return !stat("/proc/self/ns/net", &ours) &&
	       (ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev);
}
