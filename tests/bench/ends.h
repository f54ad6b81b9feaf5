// SPDX-License-Identifier: Apache-2.0
/* What both ends of the traffic need: clocks, namespaces, sockets, samples. */
#ifndef BENCH_ENDS_H
#define BENCH_ENDS_H

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
#define SAMPLES_MAX (1 << 20)
#define NSEC_PER_SEC 1000000000LL
#define ANSWER_TIMEOUT (5 * NSEC_PER_SEC)

static struct sockaddr_in address = { .sin_family = AF_INET };
static size_t bytes;
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
	return sampled ? samples[(size_t)(quantile * (double)(sampled - 1))] / 1e3 : 0;
}

#endif
