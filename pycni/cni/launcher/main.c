// SPDX-License-Identifier: Apache-2.0
/* The CNI executable where a C compiler was at hand: hands a call to the node's agent, as
 * pycni/cni/plugin.py does. If no agent answers, it becomes `pycni.once`, which does the
 * same work, where the host has a Python with pycni. Where it has none, DEL, STATUS and
 * VERSION are done here, and the others are to be tried again.
 *
 * pycni/cni/launcher/__init__.py compiles this, and defines what is in capitals here and
 * in no header.
 */
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier): glibc's name */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "answer.h"
#include "call.h"
#include "detach.h"
#include "netns.h"
#include "paths.h"
#include "state.h"

/* Tells `pycni uninstall` whose file this is. */
__attribute__((used)) static const char marker[] = MARKER;

/* How far the agent came with a call that it did not answer. */
enum tried {
	UNANSWERED,
	LOST
};

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

static bool is_command(const struct command *command, const char *name)
{
	return !strcmp(command->name, name);
}

/* Returns if there is none. What was read of stdin is there to be read again. */
static void become_python(const struct paths *paths, const struct bytes *in)
{
	char *argv[] = { (char *)paths->python,	  "-I", "-m", "pycni.once",
			 (char *)paths->settings, NULL };
	int copy;

	if (access(paths->python, X_OK))
		return;
	copy = memfd_create("stdin", MFD_CLOEXEC);
	if (copy < 0 || write_all(copy, in->at, in->len) || lseek(copy, 0, SEEK_SET) ||
	    dup2(copy, 0))
		refuse(TRY_AGAIN, "no agent answers, and stdin cannot be kept", "errno %d", errno);
	execv(paths->python, argv);
}

/* `error`: what came of asking the agent, an errno. */
static _Noreturn void work_alone(const struct command *command, const struct paths *paths,
				 const struct bytes *in, int error)
{
	struct head head;

	check_environment(command);
	head = check_configuration(in, command);
	if (is_command(command, "DEL")) {
		put(&head.name.text, "", 1);
		detach(paths, head.name.text.at);
		_exit(0);
	}
	if (is_command(command, "STATUS")) {
		check_state(paths);
		_exit(0);
	}
	refuse(TRY_AGAIN, "pycni's agent does not answer on this node; try again", "%s: errno %d",
	       paths->socket, error);
}

static _Noreturn void do_without_agent(const struct command *command, const struct paths *paths,
				       const struct bytes *in, enum tried tried)
{
	int error = errno;

	if (tried == LOST && is_command(command, "ADD")) {
		/* it may be half done: the runtime's DEL clears it away */
		struct head head = {};

		if (read_head(in->at, in->len, &head) != NO_JSON)
			answer_in(version_number(head.exact_version.text.at,
						 head.exact_version.text.len));
		refuse(TRY_AGAIN, "the agent stopped during ADD; try again", "errno %d", error);
	}
	if (*paths->python)
		become_python(paths, in);
	work_alone(command, paths, in, error);
}

/* Stdin as far as it comes in time: some runtimes never close it. */
static _Noreturn void answer_version(void)
{
	struct bytes in = {};
	struct head head = {};
	struct timespec time;
	long long end, left;
	ssize_t got = 1;

	clock_gettime(CLOCK_MONOTONIC, &time);
	end = time.tv_sec * 1000LL + time.tv_nsec / 1000000 + VERSION_MS;
	while (got > 0 && in.len <= STDIN_LIMIT) {
		struct pollfd ready = { .fd = 0, .events = POLLIN };

		clock_gettime(CLOCK_MONOTONIC, &time);
		left = end - time.tv_sec * 1000LL - time.tv_nsec / 1000000;
		if (left <= 0 || poll(&ready, 1, (int)left) <= 0)
			break;
		reserve(&in, 4096);
		got = read(0, in.at + in.len, 4096);
		in.len += got > 0 ? got : 0;
	}
	if (read_head(in.at, in.len, &head) == AN_OBJECT)
		answer_in(version_number(head.exact_version.text.at, head.exact_version.text.len));
	tell_versions();
}

/* Where nobody else can do the work, an agent that has much to do is waited for. */
static int patience(const struct command *command, const struct paths *paths)
{
	bool by_others = *paths->python || is_command(command, "DEL") ||
			 is_command(command, "STATUS");

	return by_others ? command->hello_ms : GRACE_MS;
}

int main(void)
{
	const struct command *command = find_command();
	struct bytes frame = {}, in = {};
	struct reply reply = {};
	struct paths paths;
	size_t stdin_at;
	int agent;

	signal(SIGPIPE, SIG_IGN); /* writing then fails, as in Python */
	keep_standard_descriptors();
	if (!*variable("CNI_COMMAND"))
		tell_about();
	if (!strcmp(variable("CNI_COMMAND"), "VERSION"))
		answer_version();

	paths = read_paths();
	stdin_at = begin_frame(&frame);
	if (put_file(&frame, 0, STDIN_LIMIT)) {
		int error = errno;

		check_environment(command);
		refuse(FILE_ERROR, "stdin cannot be read",
		       "errno %d; the container runtime must write the network "
		       "configuration to it",
		       error);
	}
	end_frame(&frame, stdin_at);
	in.at = frame.at + stdin_at;
	in.len = frame.len - stdin_at;

	agent = connect_agent(paths.socket, patience(command, &paths));
	if (agent < 0 || send_call(agent, &frame, open_netns()))
		do_without_agent(command, &paths, &in, UNANSWERED);
	if (receive_reply(agent, command->reply_ms, &reply))
		do_without_agent(command, &paths, &in, LOST);
	note_presence(&paths);
	if (write_all(1, reply.out.at, reply.out.len))
		reply.status = 1;
	write_all(2, reply.err.at, reply.err.len);
	_exit(reply.status);
}
