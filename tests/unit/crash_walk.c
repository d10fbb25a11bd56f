/*
 * tests/unit/crash_walk.c: reads all that a volume contains below a directory, and judges whether a crash may have left
 * that.
 * Not here: the model (crash_model.c), structure that files do not show (e2fsck).
 * Read more: crash.h.
 *
 * Operations of one thread become durable in their order. So a volume after a crash shows the names, sizes and
 * attributes of one state between the last acknowledged one and the last that was begun; and where an operation is done
 * in steps, perhaps some steps of the next. Of file contents, writes in place that came later may be there too, in
 * part.
 */
#include "crash.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Permissions in the ACL that directories have here: user, a named user, group, mask, others. */
enum { ACL_USER = 6, ACL_MASK = 30, ACL_OTHER = 38, ACL_LEN = 44 };

struct found_name {
	uint32_t object;
	uint8_t len;
	char name[INL_NAME_MAX + 1];
};

struct found {
	uint64_t ino;
	struct inl_stat st;
	struct inl_inode_crypt crypt;
	uint8_t *bytes; /* of a file; the target of a symbolic link */
	size_t len;
	struct found_name *names; /* of a directory, sorted */
	uint32_t n_names, room;
	struct {
		uint8_t *value;
		size_t len;
	} xattrs[CR_N_XATTRS];
	unsigned n_xattrs; /* all, known or not */
	uint32_t acl_mode; /* what the access ACL says */
};

struct walk {
	struct inl_volume *vol;
	struct found *objects;
	uint32_t n, room;
	char *text;
};

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool cannot(struct walk *walk, int err, const char *what, uint64_t ino, const struct inl_diag *diag)
{
	snprintf(walk->text, CR_TEXT, "cannot %s inode %llu: %d (%s)", what, (unsigned long long)ino, err,
		 diag ? diag->text : "");
	return false;
}

static int see_xattr(const char *name, const void *value, size_t len, void *arg)
{
	struct found *found = arg;
	char known[32];

	found->n_xattrs++;
	if (!strcmp(name, "system.posix_acl_access") && len == ACL_LEN) {
		const uint8_t *acl = value;

		found->acl_mode = acl[ACL_USER] << 6 | acl[ACL_MASK] << 3 | acl[ACL_OTHER];
	}
	for (unsigned i = 0; i < CR_N_XATTRS; i++) {
		cr_xattr_name(i, known);
		if (strcmp(known, name))
			continue;
		found->xattrs[i].value = malloc(len + 1);
		memcpy(found->xattrs[i].value, value, len);
		found->xattrs[i].len = len;
	}
	return 0;
}

static bool read_file(struct walk *walk, struct inl_inode *inode, struct found *found)
{
	struct inl_diag diag = { 0 };
	int err;

	if (found->st.size > 64u << 20)
		return cannot(walk, -EFBIG, "believe the size of", found->ino, NULL);
	found->bytes = malloc(found->st.size + 1);
	err = inl_read(inode, 0, found->bytes, found->st.size, &found->len, &diag);
	if (err)
		return cannot(walk, err, "read", found->ino, &diag);
	return found->len == found->st.size || cannot(walk, 0, "read all of", found->ino, NULL);
}

static bool read_link(struct walk *walk, struct inl_inode *inode, struct found *found)
{
	struct inl_diag diag = { 0 };
	int err;

	found->bytes = malloc(INL_SYMLINK_MAX);
	err = inl_readlink(inode, (char *)found->bytes, INL_SYMLINK_MAX, &found->len, &diag);
	return !err || cannot(walk, err, "read the link", found->ino, &diag);
}

static int compare_names(const void *a, const void *b)
{
	const struct found_name *x = a, *y = b;
	int order = memcmp(x->name, y->name, CR_MIN(x->len, y->len));

	return order ? order : (int)x->len - (int)y->len;
}

static uint32_t find_object(const struct walk *walk, uint64_t ino)
{
	for (uint32_t i = walk->n; i-- > 0;) {
		if (walk->objects[i].ino == ino)
			return i;
	}
	return CR_NONE;
}

static bool walk_object(struct walk *walk, uint64_t ino, uint32_t *out);

static uint8_t type_of(uint32_t mode)
{
	return (uint8_t)IFTODT(mode);
}

static bool add_name(struct walk *walk, uint32_t self, const struct inl_dirent *entry)
{
	struct found_name name = { .len = (uint8_t)entry->len };
	struct found *found;

	memcpy(name.name, entry->name, entry->len);
	name.object = find_object(walk, entry->ino);
	if (name.object == CR_NONE && !walk_object(walk, entry->ino, &name.object))
		return false;
	if (entry->type != DT_UNKNOWN && entry->type != type_of(walk->objects[name.object].st.mode))
		return cannot(walk, entry->type, "trust the type in the entry of", entry->ino, NULL);
	found = &walk->objects[self];
	if (found->n_names == found->room) {
		found->room = 2 * found->room + 8;
		found->names = realloc(found->names, found->room * sizeof(found->names[0]));
	}
	found->names[found->n_names++] = name;
	return true;
}

static bool read_dir(struct walk *walk, struct inl_inode *inode, uint32_t self)
{
	uint64_t ino = walk->objects[self].ino;
	struct inl_diag diag = { 0 };
	struct inl_dirent entry;
	struct inl_dir *dir;
	int err = inl_dir_open(inode, &diag, &dir);
	bool good = true;

	if (err)
		return cannot(walk, err, "open the directory", ino, &diag);
	while (good && (err = inl_dir_next(dir, &entry, &diag)) == 1)
		good = add_name(walk, self, &entry);
	inl_dir_close(dir);
	if (good && err)
		return cannot(walk, err, "read the directory", ino, &diag);
	if (good && walk->objects[self].n_names)
		qsort(walk->objects[self].names, walk->objects[self].n_names, sizeof(struct found_name), compare_names);
	return good;
}

static bool walk_inode(struct walk *walk, struct inl_inode *inode, uint32_t self)
{
	struct found *found = &walk->objects[self];
	struct inl_diag diag = { 0 };
	int err = inl_inode_stat(inode, &found->st, &diag);

	if (err)
		return cannot(walk, err, "stat", found->ino, &diag);
	inl_inode_crypt(inode, &found->crypt);
	err = inl_xattrs(inode, see_xattr, found, &diag);
	if (err)
		return cannot(walk, err, "read the attributes of", found->ino, &diag);
	if (S_ISREG(found->st.mode))
		return read_file(walk, inode, found);
	if (S_ISLNK(found->st.mode))
		return read_link(walk, inode, found);
	return !S_ISDIR(found->st.mode) || read_dir(walk, inode, self);
}

static bool walk_object(struct walk *walk, uint64_t ino, uint32_t *out)
{
	struct inl_diag diag = { 0 };
	struct inl_inode *inode;
	int err = inl_inode_get(walk->vol, ino, &diag, &inode);
	bool good;

	if (err)
		return cannot(walk, err, "get", ino, &diag);
	if (walk->n == walk->room) {
		walk->room = 2 * walk->room + 64;
		walk->objects = realloc(walk->objects, walk->room * sizeof(walk->objects[0]));
	}
	*out = walk->n++;
	walk->objects[*out] = (struct found){ .ino = ino };
	good = walk_inode(walk, inode, *out);
	inl_inode_put(inode);
	return good;
}

static void walk_done(struct walk *walk)
{
	for (uint32_t i = 0; i < walk->n; i++) {
		free(walk->objects[i].bytes);
		free(walk->objects[i].names);
		for (unsigned k = 0; k < CR_N_XATTRS; k++)
			free(walk->objects[i].xattrs[k].value);
	}
	free(walk->objects);
}

static bool walk_all(struct walk *walk, const char *root)
{
	struct inl_diag diag = { 0 };
	uint32_t object;
	uint64_t ino;
	struct inl_inode *top;
	int err = inl_inode_get(walk->vol, INL_ROOT_INO, &diag, &top);

	if (err)
		return cannot(walk, err, "get", INL_ROOT_INO, &diag);
	err = inl_lookup(top, root, strlen(root), &ino, &diag);
	inl_inode_put(top);
	if (err)
		return cannot(walk, err, "find the first directory in", INL_ROOT_INO, &diag);
	return walk_object(walk, ino, &object);
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

struct judge {
	const struct cr_model *model;
	struct walk *walk;
	uint32_t op, last;   /* the state that is tried; the last operation that had begun */
	uint32_t *object_of; /* per node */
	uint32_t *node_of;   /* per object */
	uint32_t depth;	     /* how much was right: names */
	char text[CR_TEXT];
};

__attribute__((format(printf, 2, 3))) static bool wrong(struct judge *judge, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(judge->text, sizeof(judge->text), fmt, args);
	va_end(args);
	return false;
}

/* May this node be on its way to its next state? */
static const struct cr_state *next_state(const struct judge *judge, uint32_t node)
{
	if (judge->op + 1 > judge->last || judge->model->ops[judge->op + 1].partial != node)
		return NULL;
	return cr_node_at(&judge->model->nodes[node], judge->op + 1);
}

/* What a byte would be in a state. */
static uint8_t byte_in(const struct cr_node *node, const struct cr_state *state, uint64_t at)
{
	uint8_t byte;

	cr_pattern(node->id, cr_segs_gen(state, at), at, &byte, 1);
	return byte;
}

/*
 * Is it what a later operation has, or may have, put there? The state that is tried has been looked at, but for a
 * tainted one.
 */
static bool later_byte(const struct judge *judge, const struct cr_node *node, uint64_t at, uint8_t byte)
{
	for (uint32_t i = node->n_states; i-- > 0;) {
		const struct cr_state *state = &node->states[i];

		if (state->op <= judge->op)
			break;
		if (state->op <= judge->last && byte_in(node, state, at) == byte)
			return true;
	}
	return false;
}

static bool wrong_byte(struct judge *judge, const struct cr_node *node, const struct found *found, uint64_t at, uint32_t gen)
{
	uint64_t sector = at / CR_SECTOR * CR_SECTOR, where;
	uint8_t bytes[CR_SECTOR] = { 0 };
	uint32_t id, is;

	memcpy(bytes, found->bytes + sector, CR_MIN(CR_SECTOR, found->len - sector));
	if (cr_pattern_find(bytes, &id, &is, &where))
		return wrong(judge, "file %u (inode %llu, size %llu): byte %llu is not generation %u; its sector has file %u, "
			     "generation %u, offset %llu", node->id, (unsigned long long)found->ino,
			     (unsigned long long)found->len, (unsigned long long)at, gen, id, is, (unsigned long long)where);
	return wrong(judge, "file %u (inode %llu, size %llu): byte %llu is %02x, not generation %u; no pattern in its sector",
		     node->id, (unsigned long long)found->ino, (unsigned long long)found->len, (unsigned long long)at,
		     found->bytes[at], gen);
}

/* Bytes [from, to) must be of this generation, or of what came later. */
static bool judge_seg(struct judge *judge, const struct cr_node *node, const struct found *found, uint64_t from, uint64_t to,
		      uint32_t gen)
{
	uint8_t want[4096];

	while (from < to) {
		size_t n = (size_t)CR_MIN(to - from, sizeof(want));

		cr_pattern(node->id, gen, from, want, n);
		for (size_t i = 0; memcmp(want, found->bytes + from, n) && i < n; i++) {
			if (want[i] != found->bytes[from + i] && !later_byte(judge, node, from + i, found->bytes[from + i]))
				return wrong_byte(judge, node, found, from + i, gen);
		}
		from += n;
	}
	return true;
}

static bool judge_content(struct judge *judge, uint32_t number, const struct found *found)
{
	const struct cr_node *node = &judge->model->nodes[number];
	const struct cr_state *state = cr_node_at(node, judge->op), *next = next_state(judge, number);
	uint64_t size = state->size;

	if (state->tainted || (next && next->tainted))
		return true;
	if (found->len != size &&
	    !(next && found->len >= CR_MIN(size, next->size) && found->len <= CR_MAX(size, next->size)))
		return wrong(judge, "file %u (inode %llu): size %llu, not %llu", node->id, (unsigned long long)found->ino,
			     (unsigned long long)found->len, (unsigned long long)size);
	for (uint32_t i = 0; i < state->n_segs && state->segs[i].at < CR_MIN(size, found->len); i++) {
		uint64_t end = i + 1 < state->n_segs ? state->segs[i + 1].at : UINT64_MAX;

		end = CR_MIN(end, CR_MIN(size, found->len));
		if (!judge_seg(judge, node, found, state->segs[i].at, end, state->segs[i].gen))
			return false;
	}
	for (uint64_t at = size; at < found->len; at++) { /* what is beyond can only be of the next one, or later */
		if (byte_in(node, next, at) != found->bytes[at] && !later_byte(judge, node, at, found->bytes[at]))
			return wrong_byte(judge, node, found, at, cr_segs_gen(next, at));
	}
	return true;
}

bool cr_after_e2fsck;

static bool judge_xattrs(struct judge *judge, const struct cr_node *node, const struct cr_state *state,
			 const struct found *found)
{
	uint8_t want[4096];
	unsigned n = (node->has_acl ? 1 : 0) + (node->gives_acl ? 1 : 0);

	if (cr_after_e2fsck && node->type == DT_REG && !found->n_xattrs)
		return true;
	for (unsigned i = 0; i < CR_N_XATTRS; i++) {
		if (!state->xattrs[i].gen)
			continue;
		n++;
		cr_xattr_value(node->id, state->xattrs[i].gen, want, state->xattrs[i].len);
		if (!found->xattrs[i].value || found->xattrs[i].len != state->xattrs[i].len ||
		    memcmp(want, found->xattrs[i].value, state->xattrs[i].len))
			return wrong(judge, "node %u (inode %llu): attribute %u is not generation %u, %u bytes", node->id,
				     (unsigned long long)found->ino, i, state->xattrs[i].gen, state->xattrs[i].len);
	}
	if (node->has_acl && found->acl_mode != state->mode)
		return wrong(judge, "node %u (inode %llu): no ACL, or one of mode 0%o, not 0%o", node->id,
			     (unsigned long long)found->ino, found->acl_mode, state->mode);
	return n == found->n_xattrs ||
	       wrong(judge, "node %u (inode %llu): %u attributes, not %u", node->id, (unsigned long long)found->ino,
		     found->n_xattrs, n);
}

static bool judge_crypt(struct judge *judge, const struct cr_node *node, const struct found *found)
{
	const struct inl_inode_crypt *crypt = &found->crypt;
	bool secret = judge->model->secret && (node->type == DT_REG || node->type == DT_DIR || node->type == DT_LNK);

	if (crypt->encrypted != secret)
		return wrong(judge, "node %u (inode %llu) is %sencrypted", node->id, (unsigned long long)found->ino,
			     secret ? "not " : "");
	if (!secret || (!crypt->status && inl_policy_equal(&crypt->policy, &judge->model->policy)))
		return true;
	return wrong(judge, "node %u (inode %llu) has another policy, or a wrong context: %d", node->id,
		     (unsigned long long)found->ino, crypt->status);
}

static bool judge_inode(struct judge *judge, uint32_t number, const struct found *found)
{
	const struct cr_node *node = &judge->model->nodes[number];
	const struct cr_state *state = cr_node_at(node, judge->op);

	if (type_of(found->st.mode) != node->type)
		return wrong(judge, "node %u (inode %llu): type %u, not %u", node->id, (unsigned long long)found->ino,
			     type_of(found->st.mode), node->type);
	if (!judge_crypt(judge, node, found))
		return false;
	if (found->st.nlink != state->nlink)
		return wrong(judge, "node %u (inode %llu): %u links, not %u", node->id, (unsigned long long)found->ino,
			     found->st.nlink, state->nlink);
	if (node->type != DT_LNK && (found->st.mode & 07777) != state->mode)
		return wrong(judge, "node %u (inode %llu): mode %o, not %o", node->id, (unsigned long long)found->ino,
			     found->st.mode & 07777, state->mode);
	if (node->type == DT_LNK && (found->len != node->target_len || memcmp(found->bytes, node->target, found->len)))
		return wrong(judge, "node %u (inode %llu): wrong target", node->id, (unsigned long long)found->ino);
	return judge_xattrs(judge, node, state, found);
}

static bool visible(const struct judge *judge, const struct cr_entry *entry)
{
	return entry->from <= judge->op && judge->op < entry->to;
}

static const struct found_name *find_name(const struct found *dir, const struct cr_entry *entry)
{
	struct found_name key = { .len = entry->len };

	memcpy(key.name, entry->name, entry->len);
	return dir->n_names ? bsearch(&key, dir->names, dir->n_names, sizeof(key), compare_names) : NULL;
}

static bool judge_dir(struct judge *judge, uint32_t number, uint32_t object);

static bool judge_entry(struct judge *judge, const struct cr_entry *entry, const struct found *dir)
{
	const struct found_name *name = find_name(dir, entry);

	if (!name)
		return wrong(judge, "'%.20s...' (%u bytes; node %u) is missing in node %u", entry->name, entry->len,
			     judge->model->nodes[entry->node].id, judge->model->nodes[entry->dir].id);
	judge->depth++;
	if (judge->object_of[entry->node] == CR_NONE && judge->node_of[name->object] == CR_NONE) {
		judge->object_of[entry->node] = name->object;
		judge->node_of[name->object] = entry->node;
		if (!judge_inode(judge, entry->node, &judge->walk->objects[name->object]))
			return false;
		return judge->model->nodes[entry->node].type != DT_DIR || judge_dir(judge, entry->node, name->object);
	}
	return (judge->object_of[entry->node] == name->object && judge->node_of[name->object] == entry->node) ||
	       wrong(judge, "'%.20s...' is another inode than node %u", entry->name, judge->model->nodes[entry->node].id);
}

static bool judge_dir(struct judge *judge, uint32_t number, uint32_t object)
{
	const struct cr_model *model = judge->model;
	uint32_t n = 0;

	for (uint32_t i = model->nodes[number].first; i != CR_NONE; i = model->entries[i].next) {
		if (!visible(judge, &model->entries[i]))
			continue;
		n++;
		if (!judge_entry(judge, &model->entries[i], &judge->walk->objects[object]))
			return false;
	}
	return n == judge->walk->objects[object].n_names ||
	       wrong(judge, "node %u has %u names, not %u", model->nodes[number].id, judge->walk->objects[object].n_names, n);
}

static bool judge_state(struct judge *judge)
{
	const struct cr_model *model = judge->model;

	memset(judge->object_of, 0xff, model->n_nodes * sizeof(judge->object_of[0]));
	memset(judge->node_of, 0xff, judge->walk->n * sizeof(judge->node_of[0]));
	judge->object_of[0] = judge->node_of[0] = 0;
	judge->depth = 0;
	if (!judge_inode(judge, 0, &judge->walk->objects[0]) || !judge_dir(judge, 0, 0))
		return false;
	for (uint32_t i = 0; i < judge->walk->n; i++) {
		uint32_t node = judge->node_of[i];

		if (model->nodes[node].type == DT_REG && !judge_content(judge, node, &judge->walk->objects[i]))
			return false;
	}
	return true;
}

/* Try all states, the last first; tell of the one that came nearest. */
static bool judge_states(struct judge *judge, uint32_t first, char text[CR_TEXT])
{
	uint32_t best = 0;

	for (uint32_t op = judge->last + 1; op-- > first;) {
		judge->op = op;
		if (judge_state(judge))
			return true;
		if (op != judge->last && judge->depth <= best)
			continue;
		best = judge->depth;
		snprintf(text, CR_TEXT, "no state of %u..%u (%s); nearest is %u: %.700s", first, judge->last,
			 judge->model->ops[judge->last].what, op, judge->text);
	}
	return false;
}

static bool judge_between(const struct cr_model *model, struct inl_volume *vol, uint32_t first, uint32_t last,
			  char text[CR_TEXT])
{
	struct walk walk = { .vol = vol, .text = text };
	struct judge judge = { .model = model, .walk = &walk, .last = last };
	bool good = walk_all(&walk, model->root);

	if (good) {
		judge.object_of = calloc(model->n_nodes, sizeof(judge.object_of[0]));
		judge.node_of = calloc(walk.n, sizeof(judge.node_of[0]));
		good = judge_states(&judge, first, text);
	}
	free(judge.object_of);
	free(judge.node_of);
	walk_done(&walk);
	return good;
}

bool cr_judge(const struct cr_model *model, struct inl_volume *vol, uint64_t moment, char text[CR_TEXT])
{
	uint32_t first = 0, last = 0;

	for (uint32_t i = 0; i < model->n_acks && model->acks[i].moment <= moment; i++)
		first = model->acks[i].op;
	while (last < model->n_ops && model->ops[last + 1].start < moment)
		last++;
	return judge_between(model, vol, first, CR_MAX(first, last), text);
}

bool cr_judge_now(const struct cr_model *model, struct inl_volume *vol, char text[CR_TEXT])
{
	return judge_between(model, vol, model->n_ops, model->n_ops, text);
}
