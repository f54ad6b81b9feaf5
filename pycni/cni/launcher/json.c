// SPDX-License-Identifier: Apache-2.0
/* RFC 8259, read from left to right; no recursion, so nesting costs no stack. */
#include "json.h"

#include <string.h>
#include <strings.h>

#define DEPTH_MAX 1000

struct text {
	const char *at, *end;
};

static bool is_next(const struct text *t, char wanted)
{
	return t->at < t->end && *t->at == wanted;
}

static bool take(struct text *t, char wanted)
{
	if (!is_next(t, wanted))
		return false;
	t->at++;
	return true;
}

static void skip_blanks(struct text *t)
{
	while (t->at < t->end && *t->at && strchr(" \t\r\n", *t->at))
		t->at++;
}

static bool skip_word(struct text *t, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(t->end - t->at) < len || memcmp(t->at, word, len) != 0)
		return false;
	t->at += len;
	return true;
}

static bool skip_digits(struct text *t)
{
	const char *begin = t->at;

	while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
		t->at++;
	return t->at > begin;
}

static bool skip_number(struct text *t)
{
	take(t, '-');
	if (!take(t, '0') && !skip_digits(t))
		return false;
	if (take(t, '.') && !skip_digits(t))
		return false;
	if (!take(t, 'e') && !take(t, 'E'))
		return true;
	if (!take(t, '+'))
		take(t, '-');
	return skip_digits(t);
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *found = c < '0' ? NULL : strchr(digits, c | 0x20);

	return found ? (int)(found - digits) : -1;
}

/* \uXXXX behind the u; '?' stands for all but ASCII. */
static bool take_unicode(struct text *t, char *one)
{
	int code = 0;

	if (t->end - t->at < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		int digit = hex_digit(*t->at++);

		if (digit < 0)
			return false;
		code = 16 * code + digit;
	}
	*one = code && code < 0x80 ? (char)code : '?';
	return true;
}

static bool take_escape(struct text *t, char *one)
{
	const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t", *found;

	if (t->at == t->end || !*t->at)
		return false;
	if (take(t, 'u'))
		return take_unicode(t, one);
	found = strchr(from, *t->at++);
	*one = found ? to[found - from] : 0;
	return found;
}

/* `to`: where the text goes, NULL for nowhere. */
static bool take_string(struct text *t, struct bytes *to)
{
	if (!take(t, '"'))
		return false;
	while (t->at < t->end && *t->at != '"') {
		char one = *t->at++;

		if (one == '\\') {
			if (!take_escape(t, &one))
				return false;
		} else if ((unsigned char)one < ' ') {
			return false;
		} else if ((unsigned char)one >= 0x80) {
			one = '?';
		}
		if (to)
			put(to, &one, 1);
	}
	return take(t, '"');
}

static bool skip_scalar(struct text *t)
{
	if (is_next(t, '"'))
		return take_string(t, NULL);
	return skip_word(t, "null") || skip_word(t, "true") || skip_word(t, "false") ||
	       skip_number(t);
}

/* A key and its colon. */
static bool take_key(struct text *t, struct bytes *key)
{
	skip_blanks(t);
	if (!take_string(t, key))
		return false;
	skip_blanks(t);
	if (!take(t, ':'))
		return false;
	skip_blanks(t);
	return true;
}

/* `closing`: what ends each array and object that is open. After one of their values:
 * to the begin of the next one, or to the end of the outermost.
 */
static bool skip_to_next(struct text *t, const char *closing, int *depth)
{
	while (*depth) {
		skip_blanks(t);
		if (take(t, ',')) {
			if (closing[*depth - 1] == '}')
				return take_key(t, NULL);
			skip_blanks(t);
			return true;
		}
		if (!take(t, closing[*depth - 1]))
			return false;
		--*depth;
	}
	return true;
}

/* One value with all that is in it. */
static bool skip_value(struct text *t)
{
	char closing[DEPTH_MAX];
	int depth = 0;

	do {
		bool is_object = is_next(t, '{');

		if (!is_object && !is_next(t, '[')) {
			if (!skip_scalar(t))
				return false;
		} else {
			if (depth == DEPTH_MAX)
				return false;
			t->at++;
			skip_blanks(t);
			closing[depth++] = is_object ? '}' : ']';
			if (!is_next(t, closing[depth - 1])) {
				if (is_object && !take_key(t, NULL))
					return false;
				continue;
			}
			t->at++;
			depth--;
		}
		if (!skip_to_next(t, closing, &depth))
			return false;
	} while (depth);
	return true;
}

static bool take_value(struct text *t, struct value *value)
{
	value->kind = is_next(t, '"') ? STRING : OTHER;
	value->text.len = 0;
	if (value->kind == STRING)
		return take_string(t, &value->text);
	if (is_next(t, 'n'))
		value->kind = ABSENT;
	return skip_value(t);
}

static bool is_key(const struct bytes *key, const char *name, bool exactly)
{
	return key->len == strlen(name) &&
	       !(exactly ? memcmp(key->at, name, key->len) : strncasecmp(key->at, name, key->len));
}

/* The value of a key in its exact spelling wins over one in another. */
struct slot {
	const char *key;
	struct value *value;
	bool is_exact, only_exact;
};

static bool take_member(struct text *t, const struct bytes *key, struct slot *slots, int count)
{
	const char *begin = t->at;

	if (!skip_value(t))
		return false;
	for (int i = 0; i < count; i++) {
		struct slot *slot = &slots[i];
		struct text again = { begin, t->at };
		bool exactly = slot->is_exact || slot->only_exact;

		if (!is_key(key, slot->key, exactly))
			continue;
		slot->is_exact = is_key(key, slot->key, true);
		if (!take_value(&again, slot->value))
			return false;
	}
	return true;
}

static bool read_members(struct text *t, struct slot *slots, int count)
{
	struct bytes key = {};

	skip_blanks(t);
	if (take(t, '}'))
		return true;
	do {
		key.len = 0;
		if (!take_key(t, &key) || !take_member(t, &key, slots, count))
			return false;
		skip_blanks(t);
	} while (take(t, ','));
	return take(t, '}');
}

enum found read_head(const char *text, size_t len, struct head *head)
{
	struct text t = { text, text + len };
	struct slot slots[] = {
		{ .key = "cniVersion", .value = &head->version },
		{ .key = "name", .value = &head->name },
		{ .key = "cniVersion", .value = &head->exact_version, .only_exact = true },
	};
	bool is_null, is_object;

	skip_blanks(&t);
	is_null = is_next(&t, 'n');
	is_object = take(&t, '{');
	if (is_object ? !read_members(&t, slots, 3) : !skip_value(&t))
		return NO_JSON;
	skip_blanks(&t);
	if (t.at != t.end)
		return NO_JSON;
	return is_null || is_object ? AN_OBJECT : NO_OBJECT;
}
