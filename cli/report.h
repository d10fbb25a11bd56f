/*
 * cli/report.h: what `inlay get` and `inlay put` say of themselves: progress, and a report at the end.
 * Not here: messages of failures that end them (cli/cli.h).
 * Read more: doc/inlay.1.
 */
#ifndef INLAY_CLI_REPORT_H
#define INLAY_CLI_REPORT_H

#include "cli/cli.h"

#define INL_REPORT_LINES 1000

/* Which of the two could not do it. It goes on without what was refused, even if nobody asked for that. */
enum inl_side { INL_SOURCE, INL_DESTINATION, INL_REFUSED };

struct inl_report {
	struct inl_cli *cli;
	const char *done; /* what is done with files: "exported" */
	const char *dest;
	char *lines[INL_REPORT_LINES];
	uint64_t n_lines; /* also those that are not kept */
	uint64_t n_files; /* done now: everything but directories */
	uint64_t n_bytes;
	uint64_t n_same;    /* found done */
	uint64_t n_skipped; /* entries that are not there now */
	uint64_t n_partial; /* files with holes where they could not be read */
	uint64_t n_xattrs;  /* refused by the destination */
	char *first_xattr;
	uint64_t n_unlinked; /* hard links that became files of their own */
	bool progress;
	bool shown;
	int64_t started, last; /* milliseconds */
};

void inl_report_start(struct inl_report *report, struct inl_cli *cli, const char *done);
void inl_report_progress(struct inl_report *report);
void inl_report_erase(struct inl_report *report);
void inl_report_add(struct inl_report *report, const char *where, const char *why);
void inl_report_end(struct inl_report *report); /* report->dest names the destination by then */
void inl_report_done(struct inl_report *report);

#endif
