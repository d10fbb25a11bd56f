/*
 * tests/unit/crash_ops.c: operations at random, on a volume and on the model of it.
 * Not here: what is done with what was recorded (test_crash.c).
 * Read more: crash.h; inlay/volume.h.
 *
 * An operation is noted in the model before it begins: after a crash in the middle of it either state may be found.
 */
#include "crash.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MODE_MASK  07777u
#define TRIM_EVERY 61u /* operations */

static bool failed(struct cr_actor *actor)
{
	return actor->error[0];
}

/* What was done was refused. Allowed are want, a full volume, and, where the device fails, all its errors. */
static void refused(struct cr_actor *actor, const char *what, int err, const struct inl_diag *diag)
{
	bool of_device = err == -EIO || err == -EROFS;

	if (failed(actor) || err == -ENOSPC || (actor->errors_ok && of_device))
		return;
	snprintf(actor->error, sizeof(actor->error), "operation %u (%s): %s: %d (%s)", actor->model.n_ops,
		 actor->model.ops[actor->model.n_ops].what, what, err, diag ? diag->text : "");
}

static uint32_t begin(struct cr_actor *actor, const char *what, uint32_t node, uint64_t a, uint64_t b)
{
	return cr_op_begin(&actor->model, cr_rec_now(actor->rec), "%s node %u: %llu, %llu", what, actor->model.id_base + node,
			   (unsigned long long)a, (unsigned long long)b);
}

/* The operation changes this node in steps. */
static void in_steps(struct cr_actor *actor, uint32_t op, uint32_t node)
{
	actor->model.ops[op].partial = node;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static uint64_t bytes_used(const struct cr_actor *actor)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < actor->model.n_nodes; i++) {
		const struct cr_state *now = cr_node_now(&actor->model, i);

		if (now->nlink || actor->model.nodes[i].handle)
			sum += CR_MIN(now->size, 1u << 20);
	}
	return sum;
}

/* A name at random whose node has this type (DT_UNKNOWN: any); CR_NONE. */
static uint32_t pick_entry(struct cr_actor *actor, uint8_t type)
{
	const struct cr_model *model = &actor->model;
	uint32_t found = CR_NONE, n = 0;

	for (uint32_t i = 0; i < model->n_entries; i++) {
		if (model->entries[i].to != CR_NONE || (type && model->nodes[model->entries[i].node].type != type))
			continue;
		if (!cr_below(&actor->dice, ++n))
			found = i;
	}
	return found;
}

/* A directory that is still there, the first one often. */
static uint32_t pick_dir(struct cr_actor *actor)
{
	uint32_t entry = cr_chance(&actor->dice, 25) ? CR_NONE : pick_entry(actor, DT_DIR);

	return entry == CR_NONE ? 0 : actor->model.entries[entry].node;
}

/* A regular file, with a name or open; one with contents rather than not. */
static uint32_t pick_file(struct cr_actor *actor)
{
	const struct cr_model *model = &actor->model;
	uint32_t found = CR_NONE, n = 0;

	for (uint32_t i = 0; i < model->n_nodes; i++) {
		const struct cr_state *now = cr_node_now(model, i);
		uint32_t weight = now->size ? 20 : 1;

		if (model->nodes[i].type != DT_REG || (!now->nlink && !model->nodes[i].handle))
			continue;
		n += weight;
		if (cr_below(&actor->dice, n) < weight)
			found = i;
	}
	return found;
}

static size_t make_name(struct cr_actor *actor, bool is_long, char name[INL_NAME_MAX + 1])
{
	size_t len = is_long ? cr_between(&actor->dice, 180, 255) : cr_between(&actor->dice, 8, 30);

	memset(name, 0, INL_NAME_MAX + 1);
	for (size_t i = 0; i < len; i++)
		name[i] = (char)('a' + cr_below(&actor->dice, 26));
	if (cr_chance(&actor->dice, 10))
		name[0] = (char)0xe4;
	if (actor->model.secret && len >= 2 * CR_MARK)
		cr_mark_put((uint8_t *)name, len, cr_below(&actor->dice, (uint32_t)len - CR_MARK + 1), len);
	return len;
}

/* The directory of long names is node 1. */
static bool is_long_dir(uint32_t dir)
{
	return dir == 1;
}

/* ---- inodes of the volume ---------------------------------------------------------------------------------------- */

static struct inl_inode *get(struct cr_actor *actor, uint32_t node)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *inode = NULL;
	int err;

	if (node == CR_NONE)
		return NULL;
	if (actor->model.nodes[node].handle)
		return actor->model.nodes[node].handle;
	err = inl_inode_get(actor->vol, actor->model.nodes[node].ino, &diag, &inode);
	if (err)
		refused(actor, "get", err, &diag);
	return err ? NULL : inode;
}

static void put(struct cr_actor *actor, uint32_t node, struct inl_inode *inode)
{
	if (inode && inode != actor->model.nodes[node].handle)
		inl_inode_put(inode);
}

static void learn_ino(struct cr_actor *actor, uint32_t node, struct inl_inode *inode)
{
	struct inl_stat st = { 0 };
	struct inl_diag diag = { 0 };
	int err = inl_inode_stat(inode, &st, &diag);

	if (err)
		refused(actor, "stat", err, &diag);
	actor->model.nodes[node].ino = st.ino;
}

/* ---- making names ------------------------------------------------------------------------------------------------ */

/* A default ACL: user rwx, user 100 r-x, group r-x, mask rwx, others r-x. */
static const uint8_t default_acl[] = { 2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2,  0, 5, 0, 100, 0, 0, 0, 4, 0, 5, 0,
				       255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255 };
#define ACL_GIVES 0775u

static void give_acl(struct cr_actor *actor, uint32_t dir)
{
	struct inl_inode *inode = get(actor, dir);
	struct inl_diag diag = { 0 };
	int err = inode ? inl_xattr_set(inode, "system.posix_acl_default", default_acl, sizeof(default_acl), 0, &diag) : 0;

	if (err)
		refused(actor, "set a default ACL", err, &diag);
	else
		actor->model.nodes[dir].gives_acl = true;
	put(actor, dir, inode);
}

/* What has been made in a directory inherits its ACL. */
static uint32_t node_add(struct cr_actor *actor, uint32_t dir, uint8_t type, uint32_t mode)
{
	uint32_t node = cr_node_add(&actor->model, type, mode);

	actor->model.nodes[node].has_acl = actor->model.nodes[dir].gives_acl;
	actor->model.nodes[node].gives_acl = actor->model.nodes[dir].gives_acl && type == DT_DIR;
	return node;
}

static void do_create(struct cr_actor *actor, uint32_t dir, uint8_t type)
{
	struct inl_attr attr = { .mode = DTTOIF(type) | 0600 | cr_below(&actor->dice, 0200),
				 .umask = cr_below(&actor->dice, 01000) };
	uint32_t gives = actor->model.nodes[dir].gives_acl ? ACL_GIVES : ~attr.umask;
	struct inl_inode *parent = get(actor, dir), *inode = NULL;
	char name[INL_NAME_MAX + 1];
	size_t len = make_name(actor, is_long_dir(dir), name);
	struct inl_diag diag = { 0 };
	uint32_t node;
	int err;

	if (!parent)
		return;
	begin(actor, type == DT_DIR ? "mkdir" : "create", dir, type, len);
	err = inl_create(parent, name, len, &attr, INL_ATTR_INHERIT, &diag, &inode);
	if (err) {
		refused(actor, "create", err, &diag);
	} else {
		node = node_add(actor, dir, type, attr.mode & MODE_MASK & gives);
		learn_ino(actor, node, inode);
		cr_entry_add(&actor->model, dir, name, len, node);
		if (type == DT_DIR)
			cr_node_change(&actor->model, dir)->nlink++;
		inl_inode_put(inode);
	}
	put(actor, dir, parent);
}

/* Short targets stand in the inode, others in a block, which may begin as blocks of the journal do. */
static size_t make_target(struct cr_actor *actor, char target[1024])
{
	size_t len = cr_chance(&actor->dice, 50) ? cr_between(&actor->dice, 1, 59) : cr_between(&actor->dice, 60, 900);

	for (size_t i = 0; i < len; i++)
		target[i] = (char)('A' + cr_below(&actor->dice, 26));
	if (len > 60 && cr_chance(&actor->dice, 50))
		memcpy(target, "\xc0\x3b\x39\x98\0\0\0", 4);
	if (actor->model.secret)
		cr_mark_put((uint8_t *)target, len, 4, 64);
	return len;
}

static void do_symlink(struct cr_actor *actor)
{
	struct inl_attr attr = { .mode = S_IFLNK | 0777 };
	uint32_t dir = pick_dir(actor), node;
	struct inl_inode *parent = get(actor, dir), *inode = NULL;
	char name[INL_NAME_MAX + 1], target[1024];
	size_t len = make_name(actor, is_long_dir(dir), name), target_len = make_target(actor, target);
	struct inl_diag diag = { 0 };
	int err;

	if (!parent)
		return;
	begin(actor, "symlink", dir, target_len, len);
	err = inl_symlink(parent, name, len, target, target_len, &attr, 0, &diag, &inode);
	if (err) {
		refused(actor, "symlink", err, &diag);
	} else {
		node = cr_node_add(&actor->model, DT_LNK, 0777);
		learn_ino(actor, node, inode);
		actor->model.nodes[node].target = malloc(target_len);
		actor->model.nodes[node].target_len = target_len;
		memcpy(actor->model.nodes[node].target, target, target_len);
		cr_entry_add(&actor->model, dir, name, len, node);
		inl_inode_put(inode);
	}
	put(actor, dir, parent);
}

static void do_link(struct cr_actor *actor)
{
	uint32_t entry = pick_entry(actor, DT_REG), dir = pick_dir(actor);
	uint32_t node = entry == CR_NONE ? CR_NONE : actor->model.entries[entry].node;
	struct inl_inode *inode = get(actor, node), *parent = get(actor, dir);
	char name[INL_NAME_MAX + 1];
	size_t len = make_name(actor, is_long_dir(dir), name);
	struct inl_diag diag = { 0 };
	int err;

	if (inode && parent) {
		begin(actor, "link", node, dir, len);
		err = inl_link(inode, parent, name, len, &diag);
		if (err) {
			refused(actor, "link", err, &diag);
		} else {
			cr_entry_add(&actor->model, dir, name, len, node);
			cr_node_change(&actor->model, node)->nlink++;
		}
	}
	put(actor, node, inode);
	put(actor, dir, parent);
}

/* ---- removing and moving them ------------------------------------------------------------------------------------ */

static bool is_empty(const struct cr_model *model, uint32_t dir)
{
	for (uint32_t i = model->nodes[dir].first; i != CR_NONE; i = model->entries[i].next) {
		if (model->entries[i].to == CR_NONE)
			return false;
	}
	return true;
}

/* A name is gone, and what it named has a link less. */
static void forget_name(struct cr_model *model, uint32_t entry)
{
	uint32_t node = model->entries[entry].node, dir = model->entries[entry].dir;

	cr_entry_remove(model, entry);
	if (model->nodes[node].type == DT_DIR) {
		cr_node_change(model, node)->nlink = 0;
		cr_node_change(model, dir)->nlink--;
	} else {
		cr_node_change(model, node)->nlink--;
	}
}

static void do_unlink(struct cr_actor *actor)
{
	uint32_t entry = pick_entry(actor, cr_chance(&actor->dice, 15) ? DT_LNK : DT_REG), node, dir;
	struct inl_inode *parent;
	struct inl_diag diag = { 0 };
	int err;

	if (entry == CR_NONE)
		return;
	node = actor->model.entries[entry].node;
	dir = actor->model.entries[entry].dir;
	if (cr_chance(&actor->dice, 20) && actor->model.nodes[node].type == DT_REG)
		actor->model.nodes[node].handle = get(actor, node); /* so that it outlives its name */
	parent = get(actor, dir);
	if (!parent)
		return;
	begin(actor, "unlink", node, dir, 0);
	err = inl_unlink(parent, actor->model.entries[entry].name, actor->model.entries[entry].len, &diag);
	if (err)
		refused(actor, "unlink", err, &diag);
	else
		forget_name(&actor->model, entry);
	put(actor, dir, parent);
}

static void do_rmdir(struct cr_actor *actor)
{
	uint32_t entry = pick_entry(actor, DT_DIR), node, dir;
	struct inl_inode *parent;
	struct inl_diag diag = { 0 };
	bool empty;
	int err;

	if (entry == CR_NONE)
		return;
	node = actor->model.entries[entry].node;
	dir = actor->model.entries[entry].dir;
	if (node == 1)
		return;
	empty = is_empty(&actor->model, node);
	parent = get(actor, dir);
	if (!parent)
		return;
	begin(actor, "rmdir", node, dir, 0);
	err = inl_rmdir(parent, actor->model.entries[entry].name, actor->model.entries[entry].len, &diag);
	if (!err && empty)
		forget_name(&actor->model, entry);
	else if (!(err == -ENOTEMPTY && !empty))
		refused(actor, "rmdir", err, &diag);
	put(actor, dir, parent);
}

/* Is a node this directory, or above it? */
static bool is_above(const struct cr_model *model, uint32_t node, uint32_t dir)
{
	uint32_t i;

	while (dir != node && dir) {
		for (i = 0; i < model->n_entries; i++) {
			if (model->entries[i].to == CR_NONE && model->entries[i].node == dir)
				break;
		}
		dir = i < model->n_entries ? model->entries[i].dir : 0;
	}
	return dir == node;
}

/* May the node of an entry be renamed over that of another? */
static bool may_replace(const struct cr_model *model, uint32_t entry, uint32_t over)
{
	uint32_t node = model->entries[entry].node, old = model->entries[over].node;
	bool dirs = model->nodes[node].type == DT_DIR;

	if (node == old || old == 1 || dirs != (model->nodes[old].type == DT_DIR))
		return false;
	return !dirs || is_empty(model, old);
}

static void move_name(struct cr_model *model, uint32_t entry, uint32_t dir, const char *name, size_t len)
{
	uint32_t node = model->entries[entry].node, old_dir = model->entries[entry].dir;

	cr_entry_remove(model, entry);
	cr_entry_add(model, dir, name, len, node);
	if (model->nodes[node].type == DT_DIR && old_dir != dir) {
		cr_node_change(model, old_dir)->nlink--;
		cr_node_change(model, dir)->nlink++;
	}
}

/* Under the name of an entry that has moved away. */
static void leave_whiteout(struct cr_actor *actor, struct inl_inode *parent, uint32_t entry)
{
	struct cr_entry old = actor->model.entries[entry];
	uint32_t node = node_add(actor, old.dir, DT_CHR, 0);
	struct inl_diag diag = { 0 };
	int err = inl_lookup(parent, old.name, old.len, &actor->model.nodes[node].ino, &diag);

	if (err)
		refused(actor, "look the whiteout up", err, &diag);
	cr_entry_add(&actor->model, old.dir, old.name, old.len, node);
}

static void rename_to(struct cr_actor *actor, uint32_t entry, uint32_t over, uint32_t dir, const char *name, size_t len)
{
	struct cr_model *model = &actor->model;
	uint32_t old_dir = model->entries[entry].dir;
	unsigned flags = cr_chance(&actor->dice, 15) ? INL_RENAME_WHITEOUT : 0;
	struct inl_inode *from = get(actor, old_dir), *to = get(actor, dir);
	struct inl_diag diag = { 0 };
	int err;

	if (from && to) {
		begin(actor, flags ? "rename, whiteout" : over == CR_NONE ? "rename" : "rename over", model->entries[entry].node,
		      old_dir, dir);
		err = inl_rename(from, model->entries[entry].name, model->entries[entry].len, to, name, len, flags, &diag);
		if (err) {
			refused(actor, "rename", err, &diag);
		} else {
			if (over != CR_NONE)
				forget_name(model, over);
			move_name(model, entry, dir, name, len);
			if (flags)
				leave_whiteout(actor, from, entry);
		}
	}
	put(actor, old_dir, from);
	put(actor, dir, to);
}

static void do_rename(struct cr_actor *actor)
{
	struct cr_model *model = &actor->model;
	uint32_t entry = pick_entry(actor, cr_chance(&actor->dice, 25) ? DT_DIR : DT_UNKNOWN), over, dir;
	char name[INL_NAME_MAX + 1];
	size_t len;

	if (entry == CR_NONE || model->entries[entry].node == 1)
		return;
	over = cr_chance(&actor->dice, 40) ? pick_entry(actor, model->nodes[model->entries[entry].node].type) : CR_NONE;
	if (over != CR_NONE && !may_replace(model, entry, over))
		over = CR_NONE;
	dir = over == CR_NONE ? pick_dir(actor) : model->entries[over].dir;
	if (is_above(model, model->entries[entry].node, dir))
		return;
	if (over == CR_NONE) {
		len = make_name(actor, is_long_dir(dir), name);
	} else {
		len = model->entries[over].len;
		memcpy(name, model->entries[over].name, len);
	}
	rename_to(actor, entry, over, dir, name, len);
}

static void swap_names(struct cr_model *model, uint32_t a, uint32_t b)
{
	struct cr_entry one = model->entries[a], other = model->entries[b];
	bool dir_a = model->nodes[one.node].type == DT_DIR, dir_b = model->nodes[other.node].type == DT_DIR;

	cr_entry_remove(model, a);
	cr_entry_remove(model, b);
	cr_entry_add(model, one.dir, one.name, one.len, other.node);
	cr_entry_add(model, other.dir, other.name, other.len, one.node);
	if (dir_a == dir_b || one.dir == other.dir)
		return;
	cr_node_change(model, dir_a ? one.dir : other.dir)->nlink--;
	cr_node_change(model, dir_a ? other.dir : one.dir)->nlink++;
}

static void do_exchange(struct cr_actor *actor)
{
	struct cr_model *model = &actor->model;
	uint32_t a = pick_entry(actor, DT_UNKNOWN), b = pick_entry(actor, DT_UNKNOWN), dir_a, dir_b;
	struct inl_inode *one, *other;
	struct inl_diag diag = { 0 };
	int err;

	if (a == CR_NONE || model->entries[a].node == model->entries[b].node || model->entries[a].node == 1 ||
	    model->entries[b].node == 1)
		return;
	dir_a = model->entries[a].dir;
	dir_b = model->entries[b].dir;
	if (is_above(model, model->entries[a].node, dir_b) || is_above(model, model->entries[b].node, dir_a))
		return;
	one = get(actor, dir_a);
	other = get(actor, dir_b);
	if (one && other) {
		begin(actor, "exchange", model->entries[a].node, dir_a, dir_b);
		err = inl_rename(one, model->entries[a].name, model->entries[a].len, other, model->entries[b].name,
				 model->entries[b].len, INL_RENAME_EXCHANGE, &diag);
		if (err)
			refused(actor, "exchange", err, &diag);
		else
			swap_names(model, a, b);
	}
	put(actor, dir_a, one);
	put(actor, dir_b, other);
}

/* ---- contents ---------------------------------------------------------------------------------------------------- */

/* After an error nobody knows how far it got. */
static void taint(struct cr_actor *actor, uint32_t node, int err)
{
	if (err != -EROFS)
		cr_node_change(&actor->model, node)->tainted = true;
}

static void write_at(struct cr_actor *actor, uint32_t node, uint64_t at, size_t len)
{
	struct inl_inode *inode = get(actor, node);
	struct inl_diag diag = { 0 };
	uint8_t *bytes = malloc(len);
	struct cr_state *state;
	size_t done = 0;
	int err;

	if (inode) {
		cr_pattern(actor->model.nodes[node].id, ++actor->gen, at, bytes, len);
		in_steps(actor, begin(actor, "write", node, at, len), node);
		err = inl_write(inode, at, bytes, len, &done, &diag);
		if (err) {
			refused(actor, "write", err, &diag);
			taint(actor, node, err);
		} else {
			state = cr_node_change(&actor->model, node);
			cr_segs_set(state, at, at + done, actor->gen);
			state->size = CR_MAX(state->size, at + done);
			state->tainted |= done < len;
		}
	}
	put(actor, node, inode);
	free(bytes);
}

static void do_write(struct cr_actor *actor)
{
	uint32_t node = pick_file(actor);
	uint64_t size, at;
	size_t len;

	if (node == CR_NONE || bytes_used(actor) > actor->max_bytes)
		return;
	size = cr_node_now(&actor->model, node)->size;
	len = cr_chance(&actor->dice, 15) ? cr_between(&actor->dice, 20000, 120000) : cr_between(&actor->dice, 1, 9000);
	switch (cr_below(&actor->dice, 4)) {
	case 0: /* in what is there, or over its end */
	case 1:
		at = cr_below(&actor->dice, (uint32_t)size + 1);
		break;
	case 2:
		at = size;
		break;
	default: /* behind a hole */
		at = size + cr_below(&actor->dice, 30000);
		break;
	}
	if (cr_chance(&actor->dice, 30))
		at = at / 4096 * 4096;
	if (cr_chance(&actor->dice, 30))
		len = (len + 4095) / 4096 * 4096;
	if (at + len < 3u << 20)
		write_at(actor, node, at, len);
}

static void do_truncate(struct cr_actor *actor)
{
	uint32_t node = pick_file(actor);
	struct inl_inode *inode = get(actor, node);
	struct inl_diag diag = { 0 };
	struct cr_state *state;
	uint64_t size;
	int err;

	if (!inode)
		return;
	size = cr_node_now(&actor->model, node)->size;
	size = cr_chance(&actor->dice, 20) ? 0 : cr_below(&actor->dice, (uint32_t)size + (size ? size / 2 : 9000));
	begin(actor, "truncate", node, size, 0);
	err = inl_truncate(inode, size, &diag);
	if (err) {
		refused(actor, "truncate", err, &diag);
		taint(actor, node, err);
	} else {
		state = cr_node_change(&actor->model, node);
		cr_segs_set(state, size, UINT64_MAX, 0);
		state->size = size;
	}
	put(actor, node, inode);
}

static void do_fallocate(struct cr_actor *actor)
{
	static const unsigned kinds[] = { INL_FALLOC_PUNCH_HOLE | INL_FALLOC_KEEP_SIZE, INL_FALLOC_ZERO_RANGE, 0,
					  INL_FALLOC_ZERO_RANGE | INL_FALLOC_KEEP_SIZE, INL_FALLOC_KEEP_SIZE };
	unsigned flags = kinds[actor->unwritten ? cr_below(&actor->dice, CR_COUNT(kinds)) : 0];
	uint32_t node = pick_file(actor);
	struct inl_inode *inode = get(actor, node);
	struct inl_diag diag = { 0 };
	struct cr_state *state;
	uint64_t size, at, len;
	int err;

	if (!inode)
		return;
	size = cr_node_now(&actor->model, node)->size;
	at = cr_below(&actor->dice, (uint32_t)size + 5000);
	len = cr_between(&actor->dice, 1, cr_chance(&actor->dice, 10) ? 300000 : 20000);
	in_steps(actor, begin(actor, flags & 2 ? "punch" : flags & 16 ? "zero" : "fallocate", node, at, len), node);
	err = inl_fallocate(inode, flags, at, len, &diag);
	state = cr_node_change(&actor->model, node);
	if (err) {
		refused(actor, "fallocate", err, &diag);
		taint(actor, node, err);
	} else {
		if (flags & (INL_FALLOC_PUNCH_HOLE | INL_FALLOC_ZERO_RANGE))
			cr_segs_set(state, at, at + len, 0);
		if (!(flags & INL_FALLOC_KEEP_SIZE))
			state->size = CR_MAX(state->size, at + len);
	}
	put(actor, node, inode);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static void do_xattr(struct cr_actor *actor)
{
	uint32_t entry = pick_entry(actor, cr_chance(&actor->dice, 30) ? DT_DIR : DT_REG);
	uint32_t node = entry == CR_NONE ? 0 : actor->model.entries[entry].node, i = cr_below(&actor->dice, CR_N_XATTRS);
	struct inl_inode *inode = get(actor, node);
	size_t len = cr_chance(&actor->dice, 70) ? cr_below(&actor->dice, 20) : cr_between(&actor->dice, 60, 300);
	struct inl_diag diag = { 0 };
	struct cr_state *state;
	uint8_t value[512];
	char name[32];
	bool remove;
	int err;

	if (!inode)
		return;
	cr_xattr_name(i, name);
	remove = cr_node_now(&actor->model, node)->xattrs[i].gen && cr_chance(&actor->dice, 30);
	cr_xattr_value(actor->model.nodes[node].id, ++actor->gen, value, len);
	begin(actor, remove ? "remove xattr" : "set xattr", node, i, len);
	err = inl_xattr_set(inode, name, remove ? NULL : value, len, 0, &diag);
	if (err) {
		refused(actor, "set xattr", err, &diag);
	} else {
		state = cr_node_change(&actor->model, node);
		state->xattrs[i].gen = remove ? 0 : actor->gen;
		state->xattrs[i].len = (uint32_t)len;
	}
	put(actor, node, inode);
}

static void do_chmod(struct cr_actor *actor)
{
	uint32_t entry = pick_entry(actor, cr_chance(&actor->dice, 30) ? DT_DIR : DT_REG);
	uint32_t node = entry == CR_NONE ? 0 : actor->model.entries[entry].node;
	struct inl_attr attr = { .mode = cr_below(&actor->dice, 01000) };
	struct inl_inode *inode = get(actor, node);
	struct inl_diag diag = { 0 };
	int err;

	if (!inode)
		return;
	begin(actor, "chmod", node, attr.mode, 0);
	err = inl_setattr(inode, &attr, INL_ATTR_MODE, &diag);
	if (err)
		refused(actor, "chmod", err, &diag);
	else
		cr_node_change(&actor->model, node)->mode = attr.mode;
	put(actor, node, inode);
}

/* ---- durability -------------------------------------------------------------------------------------------------- */

/* An answer to a sync. After an error there must be no other answer. */
static void answered(struct cr_actor *actor, int err, const struct inl_diag *diag)
{
	if (err) {
		refused(actor, "sync", err, diag);
		actor->sync_failed = true;
		return;
	}
	if (actor->sync_failed && !failed(actor))
		snprintf(actor->error, sizeof(actor->error), "operation %u: a sync was acknowledged after one that failed",
			 actor->model.n_ops);
	cr_ack(&actor->model, cr_rec_now(actor->rec));
}

void cr_actor_sync(struct cr_actor *actor)
{
	struct inl_diag diag = { 0 };
	uint32_t node = cr_chance(&actor->dice, 50) ? pick_file(actor) : CR_NONE;
	struct inl_inode *inode = get(actor, node);

	if (inode)
		answered(actor, inl_fsync(inode, &diag), &diag);
	else
		answered(actor, inl_sync(actor->vol, &diag), &diag);
	put(actor, node, inode);
}

/* A part of what is free, as all of it would make large recordings: another one each time. */
static void trim(struct cr_actor *actor)
{
	uint64_t at = actor->model.n_ops * 7919ull * 1024 % actor->rec->size, trimmed;
	struct inl_diag diag = { 0 };

	answered(actor, inl_trim(actor->vol, at, 100000, actor->model.n_ops % 8000, &trimmed, &diag), &diag);
}

/* Let go of a file that was kept open. */
static void do_release(struct cr_actor *actor)
{
	for (uint32_t i = 0; i < actor->model.n_nodes; i++) {
		struct cr_node *node = &actor->model.nodes[i];

		if (!node->handle || !cr_chance(&actor->dice, 40))
			continue;
		inl_inode_put(node->handle);
		node->handle = NULL;
	}
}

void cr_actor_release(struct cr_actor *actor)
{
	for (uint32_t i = 0; i < actor->model.n_nodes; i++) {
		inl_inode_put(actor->model.nodes[i].handle);
		actor->model.nodes[i].handle = NULL;
	}
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

static void do_create_file(struct cr_actor *actor)
{
	uint32_t n = actor->model.n_nodes;

	do_create(actor, pick_dir(actor), cr_chance(&actor->dice, 8) ? DT_FIFO : DT_REG);
	if (actor->model.n_nodes > n && actor->model.nodes[n].type == DT_REG && cr_chance(&actor->dice, 60))
		write_at(actor, n, 0, cr_between(&actor->dice, 1, 6000));
}

static void do_mkdir(struct cr_actor *actor)
{
	do_create(actor, pick_dir(actor), DT_DIR);
}

static const struct {
	void (*fn)(struct cr_actor *actor);
	unsigned weight;
} kinds[] = {
	{ do_create_file, 16 }, { do_write, 20 },  { do_truncate, 8 }, { do_fallocate, 8 }, { do_rename, 10 },
	{ do_exchange, 2 },	{ do_link, 4 },	   { do_unlink, 12 },  { do_mkdir, 6 },	    { do_rmdir, 8 },
	{ do_symlink, 5 },	{ do_xattr, 7 },   { do_chmod, 2 },    { do_release, 2 },
};

void cr_actor_step(struct cr_actor *actor)
{
	unsigned sum = 0, draw;

	for (size_t i = 0; i < CR_COUNT(kinds); i++)
		sum += kinds[i].weight;
	draw = cr_below(&actor->dice, sum);
	for (size_t i = 0; i < CR_COUNT(kinds); i++) {
		if (draw < kinds[i].weight) {
			kinds[i].fn(actor);
			break;
		}
		draw -= kinds[i].weight;
	}
	if (cr_chance(&actor->dice, actor->sync_percent))
		cr_actor_sync(actor);
	/* A sync, too: too many of them hide what the tests plant. */
	if (actor->model.n_ops % TRIM_EVERY == TRIM_EVERY - 1)
		trim(actor);
}

void cr_actor_run(struct cr_actor *actor, unsigned n)
{
	while (n-- && !failed(actor))
		cr_actor_step(actor);
}

void cr_actor_init(struct cr_actor *actor, struct cr_rec *rec, const char *root, uint32_t id_base, uint64_t seed)
{
	memset(actor, 0, sizeof(*actor));
	cr_model_init(&actor->model, root, id_base);
	actor->rec = rec;
	actor->dice.state = seed;
	actor->sync_percent = 15;
	actor->max_bytes = 3u << 20;
	actor->unwritten = true;
}

void cr_actor_done(struct cr_actor *actor)
{
	cr_model_done(&actor->model);
}

static void make_root(struct cr_actor *actor)
{
	struct inl_attr attr = { .mode = S_IFDIR | 0755 };
	struct inl_diag diag = { 0 };
	struct inl_inode *top = NULL, *inode = NULL;
	int err = inl_inode_get(actor->vol, INL_ROOT_INO, &diag, &top);

	if (!err)
		err = inl_create(top, actor->model.root, strlen(actor->model.root), &attr, 0, &diag, &inode);
	if (err)
		refused(actor, "make the first directory", err, &diag);
	else
		learn_ino(actor, 0, inode);
	if (!err && actor->model.secret && (err = inl_set_policy(inode, &actor->model.policy, NULL, &diag)))
		refused(actor, "encrypt the first directory", err, &diag);
	inl_inode_put(inode);
	inl_inode_put(top);
}

void cr_actor_setup(struct cr_actor *actor, struct inl_volume *vol, unsigned n_names)
{
	actor->vol = vol;
	make_root(actor);
	if (!failed(actor))
		do_create(actor, 0, DT_DIR); /* node 1 */
	for (unsigned i = 0; i < n_names && !failed(actor); i++)
		do_create(actor, 1, DT_REG);
	if (!failed(actor))
		give_acl(actor, 1);
	for (unsigned i = 0; i < 20 && !failed(actor); i++)
		do_create_file(actor);
}
