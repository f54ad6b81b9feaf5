// SPDX-License-Identifier: Apache-2.0
/* Hands a CNI call to the node's agent, as pycni/cni/plugin.py does, without the
 * start of an interpreter. That file describes the protocol; a copy of it is
 * beside this program, under the name SCRIPT. Whatever is not plain becomes
 * that script, before anything is sent or after the answer is lost, and never
 * with half of its work done here.
 *
 * pycni/cni/launcher.py compiles this and defines: SOCKET, SCRIPT, UNANSWERED,
 * LOST, VERSION, MARKER (strings), COMMANDS (initializers of struct command),
 * HELLO (a character), SEND_MS, STDIN_LIMIT, FRAME_LIMIT.
 */
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct command {
	const char *name;
	int hello_ms; /* until the agent says HELLO */
	int reply_ms; /* until it answers */
};

static const struct command commands[] = { COMMANDS };

/* Tells `pycni uninstall` whose file this is. */
__attribute__((used)) static const char marker[] = MARKER;

struct bytes {
	char *at;
	size_t len, room;
};

/* CNI spec, section 5 "Error". */
static _Noreturn void refuse(int code, const char *what)
{
	dprintf(1,
		"{\"cniVersion\": \"%s\", \"code\": %d, "
		"\"msg\": \"%s (errno %d)\"}",
		VERSION, code, what, errno);
	_exit(1);
}

static void reserve(struct bytes *to, size_t len)
{
	char *at;

	if (to->len + len <= to->room)
		return;
	to->room = 2 * to->room + len;
	at = realloc(to->at, to->room);
	if (!at)
		refuse(11, "out of memory, try again");
	to->at = at;
}

static void put(struct bytes *to, const void *from, size_t len)
{
	reserve(to, len);
	memcpy(to->at + to->len, from, len);
	to->len += len;
}

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

static int write_all(int fd, const char *at, size_t len)
{
	while (len) {
		ssize_t sent = write(fd, at, len);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -1;
		at += sent;
		len -= sent;
	}
	return 0;
}

/* The script is beside this program, wherever that was installed or moved. */
static int find_script(char path[PATH_MAX])
{
	ssize_t len =
		readlink("/proc/self/exe", path, PATH_MAX - sizeof(SCRIPT));

	while (len > 0 && path[len - 1] != '/')
		len--;
	if (len <= 0)
		return -1;
	memcpy(path + len, SCRIPT, sizeof(SCRIPT));
	return 0;
}

/* `in`: what was read of stdin, if it was; `tried`: how far this came. */
static _Noreturn void become_script(const struct bytes *in, char *tried)
{
	char path[PATH_MAX];
	char *argv[] = { path, tried, NULL };

	if (in) {
		int copy = memfd_create("stdin", MFD_CLOEXEC);

		if (copy < 0 || write_all(copy, in->at, in->len) ||
		    lseek(copy, 0, SEEK_SET) || dup2(copy, 0))
			refuse(50,
			       "no agent answers, and stdin cannot be kept");
	}
	if (!find_script(path))
		execv(path, argv);
	refuse(50, SCRIPT " beside the plugin cannot be run; "
			  "run `pycni install` again");
}

/* Descriptors 0 to 2 are what they are for, or useless: nothing that is opened
 * later gets their numbers. CPython does not start with a directory as stdin.
 */
static void keep_standard_descriptors(void)
{
	struct stat about;

	if (!fstat(0, &about) && S_ISDIR(about.st_mode))
		close(0);
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", fd ? O_RDONLY : O_WRONLY);
}

static const struct command *find_command(void)
{
	const char *name = getenv("CNI_COMMAND");

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (name && !strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

/* Namespaces are regular files; opening anything else could have effects. */
static int open_netns(void)
{
	const char *path = getenv("CNI_NETNS");
	struct stat about;

	if (!path || stat(path, &about) || !S_ISREG(about.st_mode))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

/* To the end, but no more than one byte over the limit. */
static int put_stdin(struct bytes *to)
{
	size_t left = STDIN_LIMIT + 1;
	ssize_t got;

	do {
		size_t piece = left < 65536 ? left : 65536;

		reserve(to, piece);
		got = read(0, to->at + to->len, piece);
		if (got < 0)
			return -1;
		to->len += got;
		left -= got;
	} while (got && left);
	return 0;
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
		if (got <= 0)
			return -1;
		at += got;
		len -= got;
	}
	return 0;
}

static int connect_agent(int ms)
{
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char hello;

	if (agent < 0 || sizeof(SOCKET) > sizeof(where.sun_path))
		return -1;
	memcpy(where.sun_path, SOCKET, sizeof(SOCKET));
	set_limit(agent, ms);
	if (connect(agent, (struct sockaddr *)&where, sizeof(where)) ||
	    receive(agent, &hello, 1) || hello != HELLO)
		return -1;
	return agent;
}

static int send_call(int agent, const struct bytes *frame, int netns)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(netns))];
	} control = { .head = { CMSG_LEN(sizeof(netns)), SOL_SOCKET,
				SCM_RIGHTS } };
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

/* The fields of the agent's answer: exit status, stdout, stderr. They stay valid: a
 * launcher receives one answer.
 */
static int receive_reply(int agent, int ms, struct bytes field[3])
{
	char length[4];
	static struct bytes body;
	size_t left;

	set_limit(agent, ms);
	if (receive(agent, length, 4) || get_length(length) > FRAME_LIMIT)
		return -1;
	left = get_length(length);
	reserve(&body, left + 1);
	if (receive(agent, body.at, left))
		return -1;
	for (int i = 0; i < 3; i++) {
		if (left < 4 || left - 4 < get_length(body.at))
			return -1;
		field[i].at = body.at + 4;
		field[i].len = get_length(body.at);
		body.at = field[i].at + field[i].len;
		left -= 4 + field[i].len;
	}
	return left ? -1 : 0;
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

int main(void)
{
	const struct command *command = find_command();
	struct bytes frame = {}, stdin_read = {}, reply[3] = {};
	size_t env_end;
	int agent, status;

	signal(SIGPIPE, SIG_IGN); /* writing then fails, as in Python */
	keep_standard_descriptors();
	if (!command)
		become_script(NULL, NULL);

	/* the frame's length, environment and stdin, each after its length */
	put(&frame, "\0\0\0\0\0\0\0", 8);
	put_environment(&frame);
	env_end = frame.len;
	put(&frame, "\0\0\0", 4);
	if (put_stdin(&frame))
		become_script(NULL, NULL);
	set_length(frame.at, frame.len - 4);
	set_length(frame.at + 4, env_end - 8);
	set_length(frame.at + env_end, frame.len - env_end - 4);
	stdin_read.at = frame.at + env_end + 4;
	stdin_read.len = frame.len - env_end - 4;

	agent = connect_agent(command->hello_ms);
	if (agent < 0 || send_call(agent, &frame, open_netns()))
		become_script(&stdin_read, UNANSWERED);
	if (receive_reply(agent, command->reply_ms, reply))
		become_script(&stdin_read, LOST);
	status = read_status(&reply[0]);
	if (status < 0)
		become_script(&stdin_read, LOST);
	if (write_all(1, reply[1].at, reply[1].len))
		status = 1;
	write_all(2, reply[2].at, reply[2].len);
	_exit(status);
}
