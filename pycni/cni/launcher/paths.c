// SPDX-License-Identifier: Apache-2.0
#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "bytes.h"

#define LIMIT 65536

/* Lines KEY=VALUE, and comments. Keys of a later release are ignored. */
static void read_line(char *line, int number, struct paths *paths)
{
	const struct {
		const char *key, **value;
	} known[] = {
		{ "socket", &paths->socket },	  { "run_dir", &paths->run_dir },
		{ "pins", &paths->pins },	  { "python", &paths->python },
		{ "settings", &paths->settings },
	};
	char *equals = strchr(line, '=');

	if (!*line || *line == '#')
		return;
	if (!equals)
		refuse(INVALID_CONFIG, PATHS_NAME " beside the plugin is damaged",
		       "line %d is not KEY=VALUE; run `pycni install` again", number);
	*equals = 0;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(line, known[i].key))
			*known[i].value = equals + 1;
}

static void read_lines(char *text, struct paths *paths)
{
	for (int number = 1; *text; number++) {
		size_t len = strcspn(text, "\n");
		char *next = text + len + (text[len] == '\n');

		text[len] = 0;
		read_line(text, number, paths);
		text = next;
	}
}

/* Beside this program, wherever that was installed, linked or moved. */
static int open_beside(void)
{
	char path[PATH_MAX + sizeof(PATHS_NAME)];
	ssize_t len = readlink("/proc/self/exe", path, PATH_MAX);

	while (len > 0 && path[len - 1] != '/')
		len--;
	if (len <= 0) {
		errno = ENOENT;
		return -1;
	}
	memcpy(path + len, PATHS_NAME, sizeof(PATHS_NAME));
	return open(path, O_RDONLY | O_CLOEXEC);
}

struct paths read_paths(void)
{
	struct paths paths = { SOCKET, RUN_DIR, PINS, "", "" };
	struct bytes text = {};
	int file = open_beside();

	if (file < 0 && errno == ENOENT)
		return paths;
	if (file < 0 || put_file(&text, file, LIMIT) || text.len > LIMIT)
		refuse(FILE_ERROR, PATHS_NAME " beside the plugin cannot be read",
		       "errno %d; run `pycni install` again", errno);
	close(file);
	put(&text, "", 1);
	read_lines(text.at, &paths);
	return paths;
}
