/*
 * cli/info.h: describing the volume that is open, for `info` and `status`.
 * Not here: devices, counters (cli/cli.h).
 * Read more: doc/inlay.1.
 */
#ifndef INLAY_CLI_INFO_H
#define INLAY_CLI_INFO_H

#include "cli/cli.h"

struct inl_json;

/* Print all of it; as members of the open object. 0 or -errno: a part could not be read. */
int inl_info_print(struct inl_cli *cli, struct inl_diag *diag);
int inl_info_json(struct inl_cli *cli, struct inl_json *json, struct inl_diag *diag);

#endif
