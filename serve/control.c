/*
 * serve/control.c: ioctl requests: flags, trim, and what Inlay's own command asks of a mount.
 * Not here: the other side (client.c); what a report says (the caller).
 * Read more: serve/control.h.
 */
#include "serve/control.h"
#include "serve/serve.h"
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_owner(const struct inl_control *control)
{
	uid_t uid = fuse_req_ctx(control->req)->uid;

	return !uid || uid == control->mount->owner;
}

int inl_control_reply(const struct inl_control *control, const void *out, size_t len)
{
	fuse_reply_ioctl(control->req, 0, out, len);
	return 0;
}

/* ---- what ext4 has ----------------------------------------------------------------------------------------------- */

static int get_flags(const struct inl_control *control)
{
	struct inl_stat st;
	uint32_t flags;
	int err = inl_inode_stat(control->inode, &st, NULL);

	if (err)
		return err;
	flags = st.flags & INL_FLAGS_VISIBLE;
	return inl_control_reply(control, &flags, sizeof(flags));
}

/* Flags that are set when what was written before has arrived. */
struct marking {
	struct inl_flush flush; /* first */
	uint32_t flags;
};

static void mark_now(struct inl_flush *flush)
{
	int err = inl_set_flags(flush->node->inode, ((struct marking *)flush)->flags, NULL);

	if (err)
		inl_reply_error(flush->req, err);
	else
		fuse_reply_ioctl(flush->req, 0, NULL, 0);
}

/* What becomes immutable, or append-only, may have been written before, and the kernel still have it: that is first. */
static int mark(const struct inl_control *control, uint32_t flags)
{
	uid_t uid = fuse_req_ctx(control->req)->uid;
	struct marking *marking;
	struct inl_stat st;
	int err = inl_inode_stat(control->inode, &st, NULL);

	if (err)
		return err;
	/* The kernel sees to that, where it knows what is asked; not all of them do, nor by all names. */
	if (uid && (uid != st.uid || ((flags ^ st.flags) & (FS_IMMUTABLE_FL | FS_APPEND_FL))))
		return -EPERM;
	marking = calloc(1, sizeof(*marking));
	if (!marking)
		return -ENOMEM;
	marking->flags = flags;
	inl_flush_then(control->req, control->node, &marking->flush, mark_now);
	return 0;
}

static int set_flags(const struct inl_control *control)
{
	uint32_t flags;

	if (control->in_size < sizeof(flags))
		return -EINVAL;
	memcpy(&flags, control->in, sizeof(flags));
	return mark(control, flags);
}

/* The same flags by other names: the kernel asks in this way before it sets any. */
static const struct {
	uint32_t xflag, flag;
} xflags[] = {
	{ FS_XFLAG_SYNC, FS_SYNC_FL },     { FS_XFLAG_IMMUTABLE, FS_IMMUTABLE_FL }, { FS_XFLAG_APPEND, FS_APPEND_FL },
	{ FS_XFLAG_NODUMP, FS_NODUMP_FL }, { FS_XFLAG_NOATIME, FS_NOATIME_FL },
};

#define N_XFLAGS (sizeof(xflags) / sizeof(xflags[0]))

static int get_xattr_flags(const struct inl_control *control)
{
	struct fsxattr out = { 0 };
	struct inl_stat st;
	int err = inl_inode_stat(control->inode, &st, NULL);

	for (size_t i = 0; !err && i < N_XFLAGS; i++)
		out.fsx_xflags |= st.flags & xflags[i].flag ? xflags[i].xflag : 0;
	return err ? err : inl_control_reply(control, &out, sizeof(out));
}

static int set_xattr_flags(const struct inl_control *control)
{
	uint32_t flags, left;
	struct fsxattr in;
	struct inl_stat st;
	int err;

	if (control->in_size != sizeof(in))
		return -EINVAL;
	memcpy(&in, control->in, sizeof(in));
	err = inl_inode_stat(control->inode, &st, NULL);
	if (err)
		return err;
	flags = st.flags & INL_FLAGS_VISIBLE;
	left = in.fsx_xflags;
	for (size_t i = 0; i < N_XFLAGS; i++) {
		flags = in.fsx_xflags & xflags[i].xflag ? flags | xflags[i].flag : flags & ~xflags[i].flag;
		left &= ~xflags[i].xflag;
	}
	if (left || in.fsx_projid || in.fsx_extsize || in.fsx_cowextsize)
		return -EOPNOTSUPP;
	return mark(control, flags);
}

static int get_version(const struct inl_control *control)
{
	struct inl_stat st;
	int err = inl_inode_stat(control->inode, &st, NULL);

	return err ? err : inl_control_reply(control, &st.generation, sizeof(st.generation));
}

/* fstrim(8) */
static int trim(const struct inl_control *control)
{
	struct fstrim_range range;
	uint64_t trimmed = 0;
	int err;

	if (!is_owner(control))
		return -EPERM;
	if (control->in_size != sizeof(range))
		return -EINVAL;
	memcpy(&range, control->in, sizeof(range));
	err = inl_trim(control->mount->vol, range.start, range.len, range.minlen, &trimmed, NULL);
	range.len = trimmed;
	return err ? err : inl_control_reply(control, &range, sizeof(range));
}

/* ---- our own ----------------------------------------------------------------------------------------------------- */

static int get_counters(const struct inl_control *control)
{
	struct inl_mount_counters counters;

	inl_mount_counters(control->mount, &counters);
	return inl_control_reply(control, &counters, sizeof(counters));
}

static int get_server(const struct inl_control *control)
{
	uint32_t pid = (uint32_t)getpid();

	return inl_control_reply(control, &pid, sizeof(pid));
}

/* report_lock is held. */
static void drop_report(struct inl_mount *mount)
{
	if (mount->report_text)
		inl_wipe(mount->report_text, mount->report_len);
	free(mount->report_text);
	mount->report_text = NULL;
	mount->report_len = 0;
}

void inl_report_wipe(struct inl_mount *mount)
{
	pthread_mutex_lock(&mount->report_lock);
	drop_report(mount);
	/* Who was fetching it begins again. */
	mount->report_id += mount->report_id + 1 ? 1 : 2;
	pthread_mutex_unlock(&mount->report_lock);
}

/* report_lock is held. */
static int renew_report(struct inl_mount *mount, bool json)
{
	char *text;
	size_t len;
	int err = mount->report ? mount->report(mount->arg, json, &text, &len) : -EOPNOTSUPP;

	if (err)
		return err;
	drop_report(mount);
	mount->report_text = text;
	mount->report_len = len;
	mount->report_id += mount->report_id + 1 ? 1 : 2;
	return 0;
}

/* report_lock is held. */
static int take_piece(struct inl_mount *mount, struct inl_ioc_report *report)
{
	size_t left;
	int err = 0;

	if (!report->id)
		err = renew_report(mount, report->json);
	else if (report->id != mount->report_id)
		err = -EAGAIN; /* somebody else has asked since: begin again */
	if (err)
		return err;
	report->id = mount->report_id;
	report->total = mount->report_len;
	left = report->offset < mount->report_len ? mount->report_len - report->offset : 0;
	report->len = (uint32_t)(left < sizeof(report->bytes) ? left : sizeof(report->bytes));
	if (report->len)
		memcpy(report->bytes, mount->report_text + report->offset, report->len);
	return 0;
}

static int get_report(const struct inl_control *control)
{
	struct inl_ioc_report report;
	int err;

	if (!is_owner(control))
		return -EACCES;
	if (control->in_size != sizeof(report))
		return -EINVAL;
	memcpy(&report, control->in, sizeof(report));
	pthread_mutex_lock(&control->mount->report_lock);
	err = take_piece(control->mount, &report);
	pthread_mutex_unlock(&control->mount->report_lock);
	err = err ? err : inl_control_reply(control, &report, sizeof(report));
	inl_wipe(&report, sizeof(report));
	return err;
}

static int sync_all(const struct inl_control *control)
{
	int err = control->mount->read_only ? 0 : inl_sync(control->mount->vol, NULL);

	return err ? err : inl_control_reply(control, NULL, 0);
}

static int set_policy(const struct inl_control *control)
{
	struct inl_ioc_policy wire;
	struct inl_policy policy;
	int err;

	if (control->in_size != sizeof(wire))
		return -EINVAL;
	memcpy(&wire, control->in, sizeof(wire));
	policy = (struct inl_policy){
		.version = wire.version,
		.contents_mode = wire.contents_mode,
		.filenames_mode = wire.filenames_mode,
		.flags = wire.flags,
		.log2_data_unit_size = wire.log2_data_unit_size,
		.key.version = wire.version,
	};
	memcpy(policy.reserved, wire.reserved, sizeof(policy.reserved));
	memcpy(policy.key.bytes, wire.key, sizeof(policy.key.bytes));
	err = inl_control_set_policy(control, &policy, true);
	return err ? err : inl_control_reply(control, NULL, 0);
}

/*
 * FS_IOC32_*: what a 32-bit program calls them. Of what changes something the kernel knows one name, and checks who
 * asks.
 */
static const struct inl_control_row controls[] = {
	{ FS_IOC_GETFLAGS, get_flags },         { FS_IOC32_GETFLAGS, get_flags },
	{ FS_IOC_SETFLAGS, set_flags },         { FS_IOC_FSGETXATTR, get_xattr_flags },
	{ FS_IOC_FSSETXATTR, set_xattr_flags }, { FS_IOC_GETVERSION, get_version },
	{ FS_IOC32_GETVERSION, get_version },   { FITRIM, trim },
	{ INL_IOC_COUNTERS, get_counters },     { INL_IOC_SERVER, get_server },
	{ INL_IOC_REPORT, get_report },         { INL_IOC_SYNC, sync_all },
	{ INL_IOC_POLICY, set_policy },
	{ 0, NULL },
};

static const struct inl_control_row *find_row(const struct inl_control_row *row, unsigned cmd)
{
	while (row->fn && row->cmd != cmd)
		row++;
	return row->fn ? row : NULL;
}

void inl_serve_ioctl(fuse_req_t req, fuse_ino_t id, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
		     const void *in, size_t in_size, size_t out_size)
{
	INL_NODE_SCOPED struct inl_node_use use = { 0 };
	struct inl_control control = {
		.req = req, .mount = inl_mount_of(req), .arg = arg, .in = in, .in_size = in_size,
	};
	const struct inl_control_row *row = find_row(controls, cmd);
	int err = -ENOTTY;

	if (!row)
		row = find_row(inl_fscrypt_controls, cmd);
	if (row && row->needs_feature && !control.mount->keys.supported) {
		err = -EOPNOTSUPP;
	} else if (row) {
		err = inl_node_use(control.mount, id, &use);
		control.node = use.node;
		control.inode = err ? NULL : use.node->inode;
		if (!err)
			err = row->looks ? inl_ask(&control, row->fn) : row->fn(&control);
	}
	if (err)
		inl_reply_error(req, err);
}
