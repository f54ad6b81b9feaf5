// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <stdlib.h>
#include <string.h>

#include "answer.h"

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#define IFNAME_MAX 15

static const struct command commands[] = { COMMANDS };

static const struct command unknown = { "", HELLO_MS, GRACE_MS, 0, false, false };

const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

const struct command *find_command(void)
{
	const char *name = variable("CNI_COMMAND");

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return &unknown;
}

static bool is_identifier(const char *text, size_t len)
{
	if (!len || !strchr(ALNUM, text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!text[i] || !strchr(ALNUM "_.-", text[i]))
			return false;
	return true;
}

/* As IFNAME and what follows it in pycni/cni/protocol.py. */
static bool is_ifname(const char *text)
{
	static const char *const taken[] = { ".", "..", "lo", "all", "default" };
	size_t len = strlen(text);

	if (!len || len > IFNAME_MAX || text[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] < '!' || text[i] > '~' || strchr("/:%", text[i]))
			return false;
	for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++)
		if (!strcmp(text, taken[i]))
			return false;
	return true;
}

/* KEY=VALUE;KEY=VALUE; empty parts are ignored. */
static bool are_arguments(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, ";");

		if (len && (*text == '=' || !memchr(text, '=', len)))
			return false;
		text += len + (text[len] == ';');
	}
	return true;
}

static void check_presence(const struct command *command)
{
	static const char *const needed[] = { "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME" };
	struct bytes missing = {};

	for (int i = 0; command->of_pod && i < 3; i++) {
		if (*variable(needed[i]) || (i == 1 && !command->in_pod))
			continue;
		put_text(&missing, missing.len ? ", " : "");
		put_text(&missing, needed[i]);
	}
	put(&missing, "", 1);
	if (*missing.at)
		refuse(INVALID_PARAMETER, "required environment variables are missing or empty",
		       "%s; the container runtime must set them", missing.at);
}

void check_environment(const struct command *command)
{
	const char *id = variable("CNI_CONTAINERID");

	if (!*command->name)
		refuse(INVALID_PARAMETER, "unknown CNI_COMMAND",
		       "pycni knows ADD, DEL, CHECK, GC, STATUS, VERSION");
	check_presence(command);
	if (!command->of_pod)
		return;
	if (!is_identifier(id, strlen(id)))
		refuse(INVALID_PARAMETER, "CNI_CONTAINERID has characters that are not allowed",
		       "it must begin with a letter or digit, then letters, "
		       "digits, '_', '.' and '-'");
	if (!command->in_pod)
		return;
	if (!is_ifname(variable("CNI_IFNAME")))
		refuse(INVALID_PARAMETER, "CNI_IFNAME cannot be the name of a pod's interface",
		       "1 to 15 ASCII characters without spaces, '/', ':' and "
		       "'%%', not beginning with '-', and not reserved");
	if (!are_arguments(variable("CNI_ARGS")))
		refuse(INVALID_PARAMETER, "CNI_ARGS has a part that is not KEY=VALUE",
		       "parts are separated by semicolons: "
		       "KEY=VALUE;KEY=VALUE");
}

static void check_version(const struct value *value, const struct command *command)
{
	int number = 0; /* without the key, or with an empty one: the oldest */

	if (value->text.len)
		number = version_number(value->text.at, value->text.len);
	if (number < 0)
		refuse(INCOMPATIBLE_VERSION, "incompatible CNI versions",
		       "pycni supports %s to %s; set cniVersion in the network "
		       "configuration to one of these",
		       versions[0], NEWEST_VERSION);
	if (number < command->since)
		refuse(INCOMPATIBLE_VERSION, "config version does not allow the command",
		       "the config is %s, %s came with %s; set cniVersion in "
		       "the network list to that or later",
		       versions[number], command->name, versions[command->since]);
}

struct head check_configuration(const struct bytes *in, const struct command *command)
{
	struct head head = {};
	enum found found = NO_JSON;

	if (in->len > STDIN_LIMIT)
		refuse(DECODING_ERROR, "the network configuration on stdin is too long",
		       "the limit is %d bytes", STDIN_LIMIT);
	found = read_head(in->at, in->len, &head);
	if (found == NO_JSON)
		refuse(DECODING_ERROR, "the network configuration on stdin is no JSON document",
		       "whoever writes it must write one JSON document, as the "
		       "CNI specification has it");
	answer_in(version_number(head.exact_version.text.at, head.exact_version.text.len));
	if (found == NO_OBJECT)
		refuse(DECODING_ERROR, "the network configuration on stdin is no JSON object",
		       "the container runtime must write one network "
		       "configuration to it");
	if (head.version.kind == OTHER || head.name.kind == OTHER)
		refuse(DECODING_ERROR,
		       "cniVersion or name in the network configuration is not "
		       "a string",
		       "write it in quotes in the network list");
	if (!is_identifier(head.name.text.at, head.name.text.len))
		refuse(INVALID_CONFIG,
		       "the network configuration has no name, or one with "
		       "characters that are not allowed",
		       "it must begin with a letter or digit, then letters, "
		       "digits, '_', '.' and '-'");
	check_version(&head.version, command);
	return head;
}
