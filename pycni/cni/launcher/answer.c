// SPDX-License-Identifier: Apache-2.0
#include "answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LONGEST 2048

const char *const versions[] = { VERSIONS, NULL };

#define NEWEST (sizeof(versions) / sizeof(*versions) - 2)

static size_t speaks = NEWEST;

int version_number(const char *text, size_t len)
{
	for (int i = 0; versions[i]; i++)
		if (strlen(versions[i]) == len &&
		    !memcmp(versions[i], text, len))
			return i;
	return -1;
}

void answer_in(int version)
{
	speaks = version < 0 ? NEWEST : (size_t)version;
}

/* A text as JSON. Bytes that are not printable ASCII become \xNN, as a text. */
static void print_quoted(const char *text)
{
	dprintf(1, "\"");
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			dprintf(1, "\\\\x%02x", (unsigned char)*text);
		else if (*text == '"' || *text == '\\')
			dprintf(1, "\\%c", *text);
		else
			dprintf(1, "%c", *text);
	}
	dprintf(1, "\"");
}

_Noreturn void refuse(enum code code, const char *msg, const char *details, ...)
{
	char text[LONGEST];
	va_list values;

	va_start(values, details);
	vsnprintf(text, sizeof(text), details, values);
	va_end(values);
	dprintf(1, "{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": ",
		versions[speaks], (int)code);
	print_quoted(msg);
	dprintf(1, ", \"details\": ");
	print_quoted(text);
	dprintf(1, "}");
	_exit(1);
}

_Noreturn void tell_versions(void)
{
	int written = dprintf(1,
			      "{\"cniVersion\": \"%s\", "
			      "\"supportedVersions\": [",
			      versions[speaks]);

	for (int i = 0; versions[i] && written >= 0; i++)
		written = dprintf(1, "%s\"%s\"", i ? ", " : "", versions[i]);
	if (written >= 0)
		written = dprintf(1, "]}");
	_exit(written < 0);
}

_Noreturn void tell_about(void)
{
	dprintf(2, "pycni, a CNI plugin with an eBPF dataplane; CNI versions ");
	for (int i = 0; versions[i]; i++)
		dprintf(2, "%s%s", i ? ", " : "", versions[i]);
	dprintf(2, "\n");
	_exit(0);
}
