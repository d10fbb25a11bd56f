/*
 * cli/report.c: what `inlay get` and `inlay put` say of themselves: progress on a terminal, the report at the end.
 * Not here: messages of failures that end it (cli/error.c).
 * Read more: cli/report.h.
 */
#include "cli/report.h"
#include "cli/text.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_SHOWN_MAX 1000 /* bytes */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void inl_report_start(struct inl_report *report, struct inl_cli *cli, const char *done)
{
	report->cli = cli;
	report->done = done;
	report->progress = !report->cli->given[INL_OPT_QUIET] && isatty(STDERR_FILENO);
	report->started = report->last = now_ms();
}

void inl_report_progress(struct inl_report *report)
{
	char bytes[16], rate[16];
	int64_t now, spent;

	if (!report->progress)
		return;
	now = now_ms();
	if (now - report->last < 100)
		return;
	spent = now - report->started;
	fprintf(stderr, "\r%" PRIu64 " files, %s, %s/s\033[K", report->n_files + report->n_same,
		inl_text_size(report->n_bytes, bytes), inl_text_size(report->n_bytes * 1000 / (uint64_t)spent, rate));
	report->last = now;
	report->shown = true;
}

void inl_report_erase(struct inl_report *report)
{
	if (report->shown)
		fputs("\r\033[K", stderr);
	report->shown = false;
}

/* A path in a line that is kept: of one that has no end, the beginning and the end. */
static char *new_line(const char *where, const char *why)
{
	size_t len = strlen(where);
	char *line;
	int n;

	if (len <= PATH_SHOWN_MAX)
		n = asprintf(&line, "%s: %s", where, why);
	else
		n = asprintf(&line, "%.*s...%s: %s", PATH_SHOWN_MAX / 2, where, where + len - PATH_SHOWN_MAX / 2, why);
	return n < 0 ? NULL : line;
}

void inl_report_add(struct inl_report *report, const char *where, const char *why)
{
	if (report->n_lines++ < INL_REPORT_LINES)
		report->lines[report->n_lines - 1] = new_line(where, why);
}

static void totals(struct inl_report *report)
{
	inl_cli_fail(report->cli, 0, report->dest,
		     "%ju %s, %ju of them only in part; %ju were there already; %ju skipped",
		     (uintmax_t)report->n_files, report->done, (uintmax_t)report->n_partial, (uintmax_t)report->n_same,
		     (uintmax_t)report->n_skipped);
}

void inl_report_end(struct inl_report *report)
{
	inl_report_erase(report);
	for (uint64_t i = 0; i < report->n_lines && i < INL_REPORT_LINES; i++)
		inl_cli_fail(report->cli, 0, NULL, "%s", report->lines[i] ? report->lines[i] : "...");
	if (report->n_lines > INL_REPORT_LINES)
		inl_cli_fail(report->cli, 0, NULL, "... and %ju more", (uintmax_t)(report->n_lines - INL_REPORT_LINES));
	if (report->n_xattrs)
		inl_cli_fail(report->cli, 0, report->dest, "%ju extended attribute%s refused, the first: %s",
			     (uintmax_t)report->n_xattrs, report->n_xattrs == 1 ? " was" : "s were",
			     report->first_xattr);
	if (report->n_unlinked)
		inl_cli_fail(report->cli, 0, report->dest, "%ju hard link%s of %s own", (uintmax_t)report->n_unlinked,
			     report->n_unlinked == 1 ? " became a file" : "s became files",
			     report->n_unlinked == 1 ? "its" : "their");
	if (report->n_lines)
		totals(report);
}

void inl_report_done(struct inl_report *report)
{
	for (unsigned i = 0; i < INL_REPORT_LINES; i++)
		free(report->lines[i]);
	free(report->first_xattr);
}
