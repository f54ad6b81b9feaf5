// SPDX-License-Identifier: Apache-2.0
/* The server's side: a thread of its own. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "ends.h"

#define RECEIVE_BUFFER (4 << 20)
#define STOP_INTERVAL (20L * 1000 * 1000) /* ns between two looks at `stop` */

struct server {
	pthread_t thread;
	int fd;
	bool transactions; /* of one connection each */
	atomic_bool stop;
	atomic_ulong packets;
	double cpu; /* seconds, after its end */
};

static void *receive_datagrams(void *argument)
{
	static char buffers[BATCH][BYTES_MAX];
	struct server *server = argument;
	struct mmsghdr messages[BATCH] = {};
	struct iovec parts[BATCH];
	double begin = cpu_seconds();
	int count;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ buffers[i], BYTES_MAX };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (!server->stop) {
		count = recvmmsg(server->fd, messages, BATCH, MSG_WAITFORONE, NULL);
		if (count > 0)
			server->packets += count;
	}
	server->cpu = cpu_seconds() - begin;
	return NULL;
}

static void answer_until_closed(int fd, bool once)
{
	char byte;

	/* It has inherited the shorter time of the one that listens. */
	wait_at_most(fd, ANSWER_TIMEOUT);
	while (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, 0) == 1)
		if (once)
			break;
	close(fd);
}

static void *answer_connections(void *argument)
{
	struct server *server = argument;
	double begin = cpu_seconds();
	int fd;

	while (!server->stop) {
		fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			answer_until_closed(fd, server->transactions);
	}
	server->cpu = cpu_seconds() - begin;
	return NULL;
}

/* Its socket is in the namespace that the caller is in. */
static void open_server(struct server *server, int type)
{
	int size = RECEIVE_BUFFER;

	server->fd = open_socket(type, 0);
	setsockopt(server->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	wait_at_most(server->fd, STOP_INTERVAL);
	if (bind(server->fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "bind");
	if (type == SOCK_STREAM && listen(server->fd, 128))
		err(1, "listen");
}

static void start_server(struct server *server, void *(*work)(void *))
{
	/* It inherits the CPU and the namespace of its maker. */
	errno = pthread_create(&server->thread, NULL, work, server);
	if (errno)
		err(1, "thread");
}

static void stop_server(struct server *server)
{
	server->stop = true;
	pthread_join(server->thread, NULL);
	close(server->fd);
}

#endif
