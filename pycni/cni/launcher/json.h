/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a network configuration: the two keys that any work needs. What Go's
 * encoding/json refuses is refused, as in pycni/cni/document.py.
 */
#ifndef PYCNI_JSON_H
#define PYCNI_JSON_H

#include "bytes.h"

/* What a key of the document has. */
enum kind {
	ABSENT, /* null counts as absent */
	STRING,
	OTHER,
};

struct value {
	enum kind kind;
	struct bytes text; /* of a string; '?' for what is not ASCII */
};

struct head {
	struct value version, name; /* found without regard to case */
	struct value exact_version; /* under the key as it is spelt */
};

enum found {
	AN_OBJECT, /* or null, which has no keys */
	NO_OBJECT,
	NO_JSON,
};

enum found read_head(const char *text, size_t len, struct head *head);

#endif
