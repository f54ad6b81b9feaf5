// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include "detach.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "answer.h"
#include "bytes.h"
#include "call.h"
#include "lock.h"
#include "netns.h"
#include "rtnl.h"
#include "sha256.h"

#define NAME_DIGITS 12

static const unsigned char gateway_mac[6] = { GATEWAY_MAC };

/* What is looked for, and the link if it was found. */
struct search {
	const char *digest;
	struct link found;
};

static struct lock lock = { .file = -1 };

static _Noreturn void fail(const char *what)
{
	int error = errno;

	unlock(&lock);
	refuse(FILE_ERROR, "the pod's link cannot be removed",
	       "%s: errno %d; the plugin must run as root in the node's "
	       "network namespace",
	       what, error);
}

/* pycni/names.py, AttachmentKey. */
static void digest_of(const char *network, char digest[DIGITS + 1])
{
	struct bytes key = {};

	put(&key, network, strlen(network) + 1);
	put(&key, variable("CNI_CONTAINERID"), strlen(variable("CNI_CONTAINERID")) + 1);
	put_text(&key, variable("CNI_IFNAME"));
	sha256_digits(key.at, key.len, digest);
}

/* The value of the first word WORD=VALUE behind `at`, up to a blank; NULL if there is
 * none. `word` has the equals sign.
 */
static const char *find_word(const char *at, const char *word)
{
	while ((at = strchr(at, ' '))) {
		at++;
		if (!strncmp(at, word, strlen(word)))
			return at + strlen(word);
	}
	return NULL;
}

/* pycni/pods/lease.py, is_ours. */
static bool is_ours(const struct link *link, const char *digest)
{
	const char *key = NULL;

	if (strcmp(link->kind, "veth") != 0 && strcmp(link->kind, "netkit") != 0)
		return false;
	if (!strncmp(link->alias, ALIAS_HEAD " ", sizeof(ALIAS_HEAD)))
		key = find_word(link->alias, "key=");
	if (key)
		return !strncmp(key, digest, DIGITS);
	return !strncmp(link->name, NAME_HEAD, strlen(NAME_HEAD)) &&
	       !strncmp(link->name + strlen(NAME_HEAD), digest, NAME_DIGITS) &&
	       !memcmp(link->mac, gateway_mac, sizeof(gateway_mac));
}

static void look_at(const struct link *link, void *context)
{
	struct search *search = context;

	if (!search->found.index && is_ours(link, search->digest))
		search->found = *link;
}

/* By its name, or among all: somebody may have renamed it. */
static struct link find_link(const char *digest)
{
	struct search search = { .digest = digest };
	char name[sizeof(NAME_HEAD) + NAME_DIGITS] = NAME_HEAD;

	memcpy(name + strlen(NAME_HEAD), digest, NAME_DIGITS);
	if (visit_links(name, look_at, &search))
		fail("looking for it");
	if (!search.found.index && visit_links(NULL, look_at, &search))
		fail("looking at all links");
	return search.found;
}

/* For each address of the lease that has one. */
static void delete_rules(const char *alias)
{
	const char *versions_ruled = find_word(alias, "rules=");
	const char *at = alias;

	while ((at = find_word(at, "ip="))) {
		char text[INET6_ADDRSTRLEN] = {}, address[16];
		size_t len = strcspn(at, " ");
		int family = memchr(at, ':', len) ? AF_INET6 : AF_INET;
		char version = family == AF_INET ? '4' : '6';

		if (len < sizeof(text))
			memcpy(text, at, len);
		if (!memchr(versions_ruled, version, strcspn(versions_ruled, " ")) ||
		    inet_pton(family, text, address) != 1)
			continue;
		if (delete_rule(family, address) && errno != EAFNOSUPPORT)
			fail("removing a rule in the pod");
	}
}

/* Rules stay in the pod when its link goes. */
static void clear_pod(const char *alias)
{
	int pods = open_netns(), own;

	if (!find_word(alias, "rules=") || !is_pods(pods))
		return;
	own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || setns(pods, CLONE_NEWNET))
		fail("entering the pod");
	delete_rules(alias);
	if (setns(own, CLONE_NEWNET))
		fail("leaving the pod");
}

void detach(const struct paths *paths, const char *network)
{
	char digest[DIGITS + 1];
	struct link link;

	digest_of(network, digest);
	lock = lock_attachment(paths->run_dir, digest);
	link = find_link(digest);
	if (link.index) {
		clear_pod(link.alias);
		if (delete_link(link.index))
			fail("asking the kernel to remove it");
	}
	unlock(&lock);
}
