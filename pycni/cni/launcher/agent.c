// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static void set_length(char *at, size_t len)
{
	uint32_t big_endian = htonl(len);

	memcpy(at, &big_endian, sizeof(big_endian));
}

static size_t get_length(const char *at)
{
	uint32_t big_endian;

	memcpy(&big_endian, at, sizeof(big_endian));
	return ntohl(big_endian);
}

static void set_limit(int agent, int ms)
{
	struct timeval limit = { ms / 1000, ms % 1000 * 1000L };

	setsockopt(agent, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static int receive(int agent, char *at, size_t len)
{
	while (len) {
		ssize_t got = recv(agent, at, len, 0);

		if (got < 0 && errno == EINTR)
			continue; /* stopped and continued, see signal(7) */
		if (!got)
			errno = ECONNRESET;
		if (got <= 0)
			return -1;
		at += got;
		len -= got;
	}
	return 0;
}

int connect_agent(const char *path, int ms)
{
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char hello;

	if (agent < 0)
		return -1;
	if (strlen(path) >= sizeof(where.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(where.sun_path, path, strlen(path));
	set_limit(agent, ms);
	if (connect(agent, (struct sockaddr *)&where, sizeof(where)) || receive(agent, &hello, 1))
		return -1;
	if (hello == HELLO)
		return agent;
	errno = EPROTO;
	return -1;
}

static void put_environment(struct bytes *to)
{
	size_t start = to->len;

	for (char **one = environ; *one; one++) {
		if (!strchr(*one, '='))
			continue;
		if (to->len > start)
			put(to, "", 1);
		put(to, *one, strlen(*one));
	}
}

/* The frame's length, environment and stdin, each after its length. */
size_t begin_frame(struct bytes *frame)
{
	put(frame, "\0\0\0\0\0\0\0", 8);
	put_environment(frame);
	set_length(frame->at + 4, frame->len - 8);
	put(frame, "\0\0\0", 4);
	return frame->len;
}

void end_frame(struct bytes *frame, size_t stdin_at)
{
	set_length(frame->at, frame->len - 4);
	set_length(frame->at + stdin_at - 4, frame->len - stdin_at);
}

int send_call(int agent, const struct bytes *frame, int netns)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(netns))];
	} control = { .head = { CMSG_LEN(sizeof(netns)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec data = { frame->at, frame->len };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
	ssize_t sent;

	if (netns >= 0) {
		memcpy(CMSG_DATA(&control.head), &netns, sizeof(netns));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	set_limit(agent, SEND_MS);
	do
		sent = sendmsg(agent, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -1;
	return write_all(agent, frame->at + sent, frame->len - sent);
}

/* One to three digits, or -1. */
static int read_status(const struct bytes *field)
{
	int status = 0;

	for (size_t i = 0; i < field->len; i++) {
		if (field->at[i] < '0' || field->at[i] > '9')
			return -1;
		status = 10 * status + field->at[i] - '0';
	}
	return field->len && field->len <= 3 ? status : -1;
}

int receive_reply(int agent, int ms, struct reply *reply)
{
	struct bytes status = {}, body = {};
	struct bytes *fields[] = { &status, &reply->out, &reply->err };
	char length[4];
	size_t left;

	errno = 0;
	set_limit(agent, ms);
	if (receive(agent, length, 4) || get_length(length) > FRAME_LIMIT)
		return -1;
	left = get_length(length);
	reserve(&body, left + 1);
	if (receive(agent, body.at, left))
		return -1;
	for (size_t i = 0; left || i < 3; i++) {
		size_t len;

		if (left < 4 || left - 4 < get_length(body.at))
			return -1;
		len = get_length(body.at);
		if (i < 3)
			*fields[i] = (struct bytes){ body.at + 4, len, len };
		body.at += 4 + len; /* more fields are a later release's */
		left -= 4 + len;
	}
	reply->status = read_status(&status);
	return reply->status < 0 ? -1 : 0;
}
