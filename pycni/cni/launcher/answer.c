// SPDX-License-Identifier: Apache-2.0
#include "answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"

#define LONGEST 2048

const char *const versions[] = { VERSIONS, NULL };

#define NEWEST (sizeof(versions) / sizeof(*versions) - 2)

static size_t speaks = NEWEST;

int version_number(const char *text, size_t len)
{
	for (int i = 0; versions[i]; i++)
		if (strlen(versions[i]) == len && !memcmp(versions[i], text, len))
			return i;
	return -1;
}

void answer_in(int version)
{
	speaks = version < 0 ? NEWEST : (size_t)version;
}

/* Written at once, so that nobody gets a part of it. */
static char out[6 * LONGEST];
static size_t used;

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void add(const char *format, ...)
{
	va_list values;
	int len;

	va_start(values, format);
	len = vsnprintf(out + used, sizeof(out) - used, format, values);
	va_end(values);
	if (len > 0 && (size_t)len < sizeof(out) - used)
		used += len;
}

/* A text as JSON. Bytes that are not printable ASCII become \xNN, as a text. */
static void add_quoted(const char *text)
{
	add("\"");
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			add("\\\\x%02x", (unsigned char)*text);
		else if (*text == '"' || *text == '\\')
			add("\\%c", *text);
		else
			add("%c", *text);
	}
	add("\"");
}

_Noreturn void refuse(enum code code, const char *msg, const char *details, ...)
{
	char text[LONGEST];
	va_list values;

	va_start(values, details);
	vsnprintf(text, sizeof(text), details, values);
	va_end(values);
	add("{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": ", versions[speaks], (int)code);
	add_quoted(msg);
	add(", \"details\": ");
	add_quoted(text);
	add("}");
	write_all(1, out, used);
	_exit(1);
}

static void add_versions(const char *quote)
{
	for (int i = 0; versions[i]; i++)
		add("%s%s%s%s", i ? ", " : "", quote, versions[i], quote);
}

_Noreturn void tell_versions(void)
{
	add("{\"cniVersion\": \"%s\", \"supportedVersions\": [", versions[speaks]);
	add_versions("\"");
	add("]}");
	_exit(write_all(1, out, used) ? 1 : 0);
}

_Noreturn void tell_about(void)
{
	add("pycni, a CNI plugin with an eBPF dataplane; CNI versions ");
	add_versions("");
	add("\n");
	write_all(2, out, used);
	_exit(0);
}
