/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are on this node: read from a small file beside this program, so that
 * one program fits every node. Without the file, all is where it usually is.
 */
#ifndef PYCNI_PATHS_H
#define PYCNI_PATHS_H

struct paths {
	const char *socket; /* the agent's */
	const char *run_dir;
	const char *pins; /* the directory of pinned maps and programs */
	const char *python; /* that has pycni; "": none on this host */
	const char *settings; /* the settings file for it; "": the usual one */
};

/* Refuses the call if there is a file and it cannot be read. */
struct paths read_paths(void);

#endif
