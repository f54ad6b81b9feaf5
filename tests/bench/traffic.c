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
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include "server.h"

#define QUIET (5 * 1000 * 1000) /* ns without a packet: none is on its way */
#define TRIALS 7 /* of the search: to 2 % of the full rate */

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
		if (rate && (double)sent.packets * 1e9 > rate * (double)elapsed)
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
		rate = (double)sent.packets / sent.seconds;
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
	       count, (double)(last - begin) / NSEC_PER_SEC, cpu, server->cpu, microseconds_at(0.5),
	       microseconds_at(0.99));
}

static uint16_t checksum(const void *data, size_t size)
{
	uint32_t sum = 0;
	uint16_t word;

	for (size_t i = 0; i < size; i += sizeof(word)) {
		memcpy(&word, (const char *)data + i, sizeof(word));
		sum += word;
	}
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static bool is_answer(const char *packet, ssize_t size, uint16_t sequence)
{
	const struct iphdr *ip = (const void *)packet;
	const struct icmphdr *icmp;

	if (size < (ssize_t)(sizeof(*ip) + sizeof(*icmp)))
		return false;
	icmp = (const void *)(packet + (size_t)(ip->ihl * 4));
	return icmp->type == ICMP_ECHOREPLY && icmp->un.echo.sequence == sequence;
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
		request.icmp.checksum = checksum(&request, sizeof(request));
		time = now(CLOCK_MONOTONIC);
		if (sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&address,
			   sizeof(address)) < 0)
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
	printf("{\"pings\": %zu, \"p50\": %.3f, \"p99\": %.3f}\n", sampled, microseconds_at(0.5),
	       microseconds_at(0.99));
}

int main(int argc, char **argv)
{
	struct server server = {};
	const char *mode = argv[1];
	int client_cpu, server_cpu;
	int64_t duration;
	bool udp;

	if (argc != 9)
		errx(1, "usage: traffic MODE CLIENT SERVER ADDRESS SECONDS "
			"BYTES CLIENT_CPU SERVER_CPU");
	if (inet_pton(AF_INET, argv[4], &address.sin_addr) != 1)
		errx(1, "%s is no IPv4 address", argv[4]);
	address.sin_port = htons(PORT);
	duration = (int64_t)(atof(argv[5]) * NSEC_PER_SEC);
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
	if (strcmp(mode, "ping") != 0) {
		enter(argv[3], server_cpu);
		open_server(&server, udp ? SOCK_DGRAM : SOCK_STREAM);
		start_server(&server, udp ? receive_datagrams : answer_connections);
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
