// SPDX-License-Identifier: Apache-2.0
#include "rtnl.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"

#define ROOM 65536 /* more than the kernel puts into one datagram of a listing */
#define TRIES 20

struct request {
	struct nlmsghdr head;
	char room[256];
};

static int open_rtnl(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

static struct request begin(int type, int flags, const void *body, size_t len)
{
	struct request request = {
		.head = { .nlmsg_len = NLMSG_LENGTH(len),
			  .nlmsg_type = type,
			  .nlmsg_flags = NLM_F_REQUEST | flags,
			  .nlmsg_seq = 1 },
	};

	memcpy(NLMSG_DATA(&request.head), body, len);
	return request;
}

static void add(struct request *to, int type, const void *value, size_t len)
{
	size_t at = NLMSG_ALIGN(to->head.nlmsg_len);
	struct rtattr head = { .rta_len = RTA_LENGTH(len), .rta_type = type };

	memcpy((char *)to + at, &head, sizeof(head));
	memcpy((char *)to + at + RTA_LENGTH(0), value, len);
	to->head.nlmsg_len = at + RTA_SPACE(len);
}

static int send_request(int rtnl, const struct request *request)
{
	return write_all(rtnl, (const char *)request, request->head.nlmsg_len);
}

static ssize_t receive(int rtnl, char *buffer)
{
	ssize_t got;

	do
		got = recv(rtnl, buffer, ROOM, 0);
	while (got < 0 && errno == EINTR);
	return got;
}

/* The kernel's answer to a request with NLM_F_ACK; 0 or an errno. */
static int ask(int rtnl, const struct request *request)
{
	static char buffer[ROOM];
	const struct nlmsghdr *head = (const struct nlmsghdr *)buffer;
	struct nlmsgerr answer;

	if (rtnl < 0 || send_request(rtnl, request) || receive(rtnl, buffer) < 0)
		return errno;
	if (head->nlmsg_type != NLMSG_ERROR)
		return EPROTO;
	memcpy(&answer, NLMSG_DATA(head), sizeof(answer));
	return -answer.error;
}

/* `gone`: the errno that says that there is nothing to do any more. */
static int finish(const struct request *request, int gone)
{
	int rtnl = open_rtnl(), error = ask(rtnl, request);

	if (rtnl >= 0)
		close(rtnl);
	errno = error;
	return error && error != gone ? -1 : 0;
}

static void copy_text(char *to, size_t room, const struct rtattr *from)
{
	size_t len = RTA_PAYLOAD(from);

	if (len >= room)
		len = room - 1;
	memcpy(to, RTA_DATA(from), len);
	to[len] = 0;
}

static void read_kind(const struct rtattr *info, struct link *link)
{
	const struct rtattr *one = RTA_DATA(info);
	int left = RTA_PAYLOAD(info);

	for (; RTA_OK(one, left); one = RTA_NEXT(one, left))
		if (one->rta_type == IFLA_INFO_KIND)
			copy_text(link->kind, sizeof(link->kind), one);
}

static struct link read_link(struct nlmsghdr *message)
{
	const struct ifinfomsg *about = NLMSG_DATA(message);
	const struct rtattr *one = IFLA_RTA(about);
	int left = IFLA_PAYLOAD(message);
	struct link link = { .index = about->ifi_index, .is_up = about->ifi_flags & IFF_UP };

	for (; RTA_OK(one, left); one = RTA_NEXT(one, left)) {
		if (one->rta_type == IFLA_IFNAME)
			copy_text(link.name, sizeof(link.name), one);
		else if (one->rta_type == IFLA_IFALIAS)
			copy_text(link.alias, sizeof(link.alias), one);
		else if (one->rta_type == IFLA_LINKINFO)
			read_kind(one, &link);
		else if (one->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(one) == sizeof(link.mac))
			memcpy(link.mac, RTA_DATA(one), sizeof(link.mac));
	}
	return link;
}

enum step {
	GO_ON,
	DONE,
	FAILED,
	AGAIN
};

/* One message of an answer about links. */
static enum step take(struct nlmsghdr *message,
		      void (*visit)(const struct link *link, void *context), void *context)
{
	const struct nlmsgerr *error = NLMSG_DATA(message);
	struct link link;

	if (message->nlmsg_flags & NLM_F_DUMP_INTR)
		return AGAIN; /* links changed meanwhile: some may be missing */
	if (message->nlmsg_type == NLMSG_ERROR) {
		errno = -error->error;
		return errno == ENODEV ? DONE : FAILED;
	}
	if (message->nlmsg_type != RTM_NEWLINK)
		return DONE;
	link = read_link(message);
	visit(&link, context);
	return message->nlmsg_flags & NLM_F_MULTI ? GO_ON : DONE;
}

static enum step list(int rtnl, const struct request *request,
		      void (*visit)(const struct link *link, void *context), void *context)
{
	static char buffer[ROOM];
	enum step step = GO_ON;

	if (send_request(rtnl, request))
		return FAILED;
	while (step == GO_ON) {
		struct nlmsghdr *message = (struct nlmsghdr *)buffer;
		ssize_t left = receive(rtnl, buffer);

		if (left < 0)
			return FAILED;
		for (; step == GO_ON && NLMSG_OK(message, left);
		     message = NLMSG_NEXT(message, left))
			step = take(message, visit, context);
	}
	return step;
}

int visit_links(const char *name, void (*visit)(const struct link *link, void *context),
		void *context)
{
	struct ifinfomsg about = { .ifi_family = AF_UNSPEC };
	unsigned int mask = RTEXT_FILTER_SKIP_STATS;
	struct request request = begin(RTM_GETLINK, name ? 0 : NLM_F_DUMP, &about, sizeof(about));
	enum step step = AGAIN;

	add(&request, IFLA_EXT_MASK, &mask, sizeof(mask));
	if (name)
		add(&request, IFLA_IFNAME, name, strlen(name) + 1);
	for (int i = 0; i < TRIES && step == AGAIN; i++) {
		int rtnl = open_rtnl();

		step = rtnl < 0 ? FAILED : list(rtnl, &request, visit, context);
		if (rtnl >= 0)
			close(rtnl);
	}
	if (step == AGAIN)
		errno = EAGAIN;
	return step == DONE ? 0 : -1;
}

int delete_link(int index)
{
	struct ifinfomsg about = { .ifi_family = AF_UNSPEC, .ifi_index = index };
	struct request request = begin(RTM_DELLINK, NLM_F_ACK, &about, sizeof(about));

	return finish(&request, ENODEV);
}

int delete_rule(int family, const void *address)
{
	unsigned int priority = RULE_PRIORITY;
	size_t len = family == AF_INET ? 4 : 16;
	struct fib_rule_hdr about = { .family = family,
				      .src_len = 8 * len,
				      .action = FR_ACT_TO_TBL };
	struct request request = begin(RTM_DELRULE, NLM_F_ACK, &about, sizeof(about));

	add(&request, FRA_SRC, address, len);
	add(&request, FRA_PRIORITY, &priority, sizeof(priority));
	return finish(&request, ENOENT);
}
