/*
 * serve/client.c: what a program asks of a mount that another one serves.
 * Not here: the answers (control.c).
 * Read more: inlay/mount.h.
 */
#include "serve/control.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Who does not know the number says so in different ways. */
static int ask(int fd, unsigned long number, void *arg)
{
	if (!ioctl(fd, number, arg))
		return 0;
	return errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL ? -ENOTTY : -errno;
}

int inl_mounted_counters(int fd, struct inl_mount_counters *counters)
{
	return ask(fd, INL_IOC_COUNTERS, counters);
}

int inl_mounted_server(int fd, pid_t *pid)
{
	uint32_t number;
	int err = ask(fd, INL_IOC_SERVER, &number);

	if (!err)
		*pid = (pid_t)number;
	return err;
}

int inl_mounted_sync(int fd)
{
	return ioctl(fd, INL_IOC_SYNC) ? -errno : 0;
}

int inl_mounted_set_policy(int fd, const struct inl_policy *policy)
{
	struct inl_ioc_policy wire = {
		.version = policy->version,
		.contents_mode = policy->contents_mode,
		.filenames_mode = policy->filenames_mode,
		.flags = policy->flags,
		.log2_data_unit_size = policy->log2_data_unit_size,
	};

	memcpy(wire.reserved, policy->reserved, sizeof(wire.reserved));
	memcpy(wire.key, policy->key.bytes, sizeof(wire.key));
	return ioctl(fd, INL_IOC_POLICY, &wire) ? -errno : 0;
}

#define REPORT_MAX (64u << 20) /* more is nonsense: whoever serves may be anybody */

static bool is_sound(const struct inl_ioc_report *piece, uint64_t total, size_t len)
{
	return piece->total == total && total <= REPORT_MAX && piece->len <= sizeof(piece->bytes) &&
	       piece->len <= total - len;
}

static int fetch(int fd, bool json, struct inl_ioc_report *piece, char **text, size_t *len)
{
	uint64_t total = 0;
	int err;

	*text = NULL;
	*len = 0;
	*piece = (struct inl_ioc_report){ .json = json };
	do {
		piece->offset = *len;
		err = ask(fd, INL_IOC_REPORT, piece);
		if (!err && !*text) {
			total = piece->total <= REPORT_MAX ? piece->total : 0;
			*text = calloc(1, total + 1);
			err = *text ? 0 : -ENOMEM;
		}
		if (!err && !is_sound(piece, total, *len))
			err = -EIO;
		if (err)
			break;
		memcpy(*text + *len, piece->bytes, piece->len);
		*len += piece->len;
	} while (piece->len && *len < piece->total);
	if (err) {
		free(*text);
		*text = NULL;
	}
	return err;
}

int inl_mounted_report(int fd, bool json, char **text, size_t *len)
{
	struct inl_ioc_report *piece = malloc(sizeof(*piece));
	int err;

	if (!piece)
		return -ENOMEM;
	do
		err = fetch(fd, json, piece, text, len);
	while (err == -EAGAIN);
	free(piece);
	return err;
}
