// SPDX-License-Identifier: Apache-2.0
/* Traffic between two network namespaces, by two threads of one process, each
 * pinned to a CPU: both sides stop together and say their own CPU time, which
 * includes the softirqs that ran on top of them.
 *
 *	traffic udp|udp-lossless|tcp-rr|tcp-crr|ping CLIENT SERVER ADDRESS
 *		SECONDS BYTES CLIENT_CPU SERVER_CPU
 *
 * CLIENT and SERVER are paths of namespaces, ADDRESS is the server's IPv4
 * address. Prints one JSON object; what went wrong is on stderr, status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 5300
#define BATCH 32
#define BYTES_MAX 1472
#define RECEIVE_BUFFER (4 << 20)
#define SAMPLES_MAX (1 << 20)
#define NSEC_PER_SEC 1000000000LL
#define QUIET (5 * 1000 * 1000) /* ns without a packet: none is on its way */
#define TRIALS 7 /* of the search: to 2 % of the full rate */
#define ANSWER_TIMEOUT (5 * NSEC_PER_SEC)
#define STOP_INTERVAL (20 * 1000 * 1000) /* ns between two looks at `stop` */

struct server {
	pthread_t thread;
	int fd;
	bool transactions; /* of one connection each */
	atomic_bool stop;
	atomic_ulong packets;
	double cpu; /* seconds, after its end */
};

static struct sockaddr_in address = { .sin_family = AF_INET };
static size_t bytes;
static int client_cpu, server_cpu;
static uint32_t *samples; /* ns */
static size_t sampled;

static int64_t now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * NSEC_PER_SEC + time.tv_nsec;
}

static double cpu_seconds(void)
{
	return (double)now(CLOCK_THREAD_CPUTIME_ID) / NSEC_PER_SEC;
}

static void enter(const char *netns, int cpu)
{
	int fd = open(netns, O_RDONLY | O_CLOEXEC);
	cpu_set_t cpus;

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "cannot enter the network namespace %s", netns);
	close(fd);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		err(1, "cannot run on CPU %d", cpu);
}

static void wait_at_most(int fd, int64_t nanoseconds)
{
	struct timeval wait = { .tv_sec = nanoseconds / NSEC_PER_SEC,
				.tv_usec = nanoseconds % NSEC_PER_SEC / 1000 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
}

static int open_socket(int type, int protocol)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, protocol);
	int one = 1;

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	wait_at_most(fd, ANSWER_TIMEOUT);
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static int open_connected(int type)
{
	int fd = open_socket(type, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "connect");
	return fd;
}

static void take_sample(int64_t nanoseconds)
{
	if (sampled < SAMPLES_MAX)
		samples[sampled++] = nanoseconds;
}

static int compare_samples(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double microseconds_at(double quantile)
{
	return sampled ? samples[(size_t)(quantile * (sampled - 1))] / 1e3 : 0;
}

/* The server's side */

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
		count = recvmmsg(server->fd, messages, BATCH, MSG_WAITFORONE,
				 NULL);
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

/* The client's side */

struct sent {
	unsigned long packets;
	double seconds;
};

/* `rate` in packets per second; 0: as many as go. */
static struct sent send_datagrams(int fd, double rate, int64_t duration)
{
	static char payload[BYTES_MAX];
	struct iovec part = { payload, bytes };
	struct mmsghdr messages[BATCH] = {};
	int64_t begin = now(CLOCK_MONOTONIC), elapsed;
	struct sent sent = {};
	int count;

	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &part;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		elapsed = now(CLOCK_MONOTONIC) - begin;
		if (elapsed >= duration)
			break;
		if (rate && sent.packets * 1e9 > rate * elapsed)
			continue;
		count = sendmmsg(fd, messages, BATCH, 0);
		if (count < 0 && errno != ENOBUFS && errno != EAGAIN)
			err(1, "send");
		if (count > 0)
			sent.packets += count;
	}
	sent.seconds = (double)elapsed / NSEC_PER_SEC;
	return sent;
}

static unsigned long settled_count(struct server *server)
{
	unsigned long count, before;

	do {
		before = server->packets;
		usleep(QUIET / 1000);
		count = server->packets;
	} while (count != before);
	return count;
}

static void run_udp(struct server *server, int64_t duration)
{
	int fd = open_connected(SOCK_DGRAM);
	double begin = cpu_seconds(), cpu;
	struct sent sent = send_datagrams(fd, 0, duration);
	unsigned long received = settled_count(server);

	cpu = cpu_seconds() - begin;
	stop_server(server);
	printf("{\"sent\": %lu, \"received\": %lu, \"seconds\": %.6f, "
	       "\"client_cpu\": %.6f, \"server_cpu\": %.6f}\n",
	       sent.packets, received, sent.seconds, cpu, server->cpu);
}

/* RFC 2544, 26.1: the highest rate at which nothing is lost, by bisection
 * between nothing and what goes at all; `duration` is that of all trials.
 */
static void run_udp_lossless(struct server *server, int64_t duration)
{
	int fd = open_connected(SOCK_DGRAM);
	double low = 0, high = 0, rate = 0;
	unsigned long before, lost;
	struct sent sent;

	for (int trial = 0; trial < TRIALS; trial++) {
		before = settled_count(server);
		sent = send_datagrams(fd, rate, duration / TRIALS);
		lost = sent.packets - (settled_count(server) - before);
		rate = sent.packets / sent.seconds;
		if (!trial)
			high = rate;
		if (lost)
			high = rate;
		else
			low = rate > low ? rate : low;
		if (!lost && !trial)
			break;
		rate = (low + high) / 2;
	}
	stop_server(server);
	printf("{\"rate\": %.1f}\n", low);
}

static bool exchange_byte(int fd)
{
	char byte = 0;

	return send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1;
}

static void exchange_on_new_connection(void)
{
	int fd = open_connected(SOCK_STREAM);
	char byte;

	/* The server closes first, so that the client's port is free. */
	if (!exchange_byte(fd) || recv(fd, &byte, 1, 0) != 0)
		err(1, "a connection was not answered");
	close(fd);
}

static void run_tcp(struct server *server, int64_t duration)
{
	int fd = server->transactions ? -1 : open_connected(SOCK_STREAM);
	int64_t begin = now(CLOCK_MONOTONIC), last = begin, time;
	double begin_cpu = cpu_seconds(), cpu;
	unsigned long count = 0;

	do {
		if (server->transactions)
			exchange_on_new_connection();
		else if (!exchange_byte(fd))
			err(1, "no answer");
		time = now(CLOCK_MONOTONIC);
		take_sample(time - last);
		last = time;
		count++;
	} while (time - begin < duration);

	cpu = cpu_seconds() - begin_cpu;
	close(fd);
	stop_server(server);
	qsort(samples, sampled, sizeof(*samples), compare_samples);
	printf("{\"transactions\": %lu, \"seconds\": %.6f, "
	       "\"client_cpu\": %.6f, \"server_cpu\": %.6f, "
	       "\"p50\": %.3f, \"p99\": %.3f}\n",
	       count, (double)(last - begin) / NSEC_PER_SEC, cpu, server->cpu,
	       microseconds_at(0.5), microseconds_at(0.99));
}

static uint16_t checksum(const uint16_t *words, size_t count)
{
	uint32_t sum = 0;

	while (count--)
		sum += *words++;
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static bool is_answer(const char *packet, ssize_t size, uint16_t sequence)
{
	const struct iphdr *ip = (const void *)packet;
	const struct icmphdr *icmp;

	if (size < (ssize_t)(sizeof(*ip) + sizeof(*icmp)))
		return false;
	icmp = (const void *)(packet + ip->ihl * 4);
	return icmp->type == ICMP_ECHOREPLY &&
	       icmp->un.echo.sequence == sequence;
}

static void run_ping(int64_t duration)
{
	struct {
		struct icmphdr icmp;
		char payload[56];
	} request = { .icmp.type = ICMP_ECHO };
	int fd = open_socket(SOCK_RAW, IPPROTO_ICMP);
	int64_t begin = now(CLOCK_MONOTONIC), time;
	unsigned int sequence = 0;
	char answer[BYTES_MAX];
	ssize_t size;

	do {
		request.icmp.un.echo.sequence = htons(sequence);
		request.icmp.checksum = 0;
		request.icmp.checksum =
			checksum((void *)&request, sizeof(request) / 2);
		time = now(CLOCK_MONOTONIC);
		if (sendto(fd, &request, sizeof(request), 0,
			   (struct sockaddr *)&address, sizeof(address)) < 0)
			err(1, "ping");
		do {
			size = recv(fd, answer, sizeof(answer), 0);
			if (size < 0)
				err(1, "no answer to a ping");
		} while (!is_answer(answer, size, htons(sequence)));
		take_sample(now(CLOCK_MONOTONIC) - time);
		sequence++;
	} while (time - begin < duration);

	qsort(samples, sampled, sizeof(*samples), compare_samples);
	printf("{\"pings\": %zu, \"p50\": %.3f, \"p99\": %.3f}\n", sampled,
	       microseconds_at(0.5), microseconds_at(0.99));
}

int main(int argc, char **argv)
{
	struct server server = {};
	const char *mode = argv[1];
	int64_t duration;
	bool udp;

	if (argc != 9)
		errx(1, "usage: traffic MODE CLIENT SERVER ADDRESS SECONDS "
			"BYTES CLIENT_CPU SERVER_CPU");
	if (inet_pton(AF_INET, argv[4], &address.sin_addr) != 1)
		errx(1, "%s is no IPv4 address", argv[4]);
	address.sin_port = htons(PORT);
	duration = atof(argv[5]) * NSEC_PER_SEC;
	bytes = atoi(argv[6]);
	if (bytes > BYTES_MAX)
		errx(1, "at most %d bytes", BYTES_MAX);
	client_cpu = atoi(argv[7]);
	server_cpu = atoi(argv[8]);
	samples = calloc(SAMPLES_MAX, sizeof(*samples));
	if (!samples)
		err(1, "memory");

	udp = !strncmp(mode, "udp", 3);
	server.transactions = !strcmp(mode, "tcp-crr");
	if (strcmp(mode, "ping")) {
		enter(argv[3], server_cpu);
		open_server(&server, udp ? SOCK_DGRAM : SOCK_STREAM);
		start_server(&server,
			     udp ? receive_datagrams : answer_connections);
	}
	enter(argv[2], client_cpu);
	if (!strcmp(mode, "udp"))
		run_udp(&server, duration);
	else if (!strcmp(mode, "udp-lossless"))
		run_udp_lossless(&server, duration);
	else if (!strncmp(mode, "tcp-", 4))
		run_tcp(&server, duration);
	else if (!strcmp(mode, "ping"))
		run_ping(duration);
	else
		errx(1, "unknown mode %s", mode);
	return 0;
}
