/*
 * protect/store.c: the metadata of a file system, wherever it lies: read with care, links to other places followed.
 * Not here: a volume (store_volume.c), a directory (store_dir.c); what is in the files (message.c).
 * Read more: fscrypt's filesystem/filesystem.go.
 */
#include "protect/private.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const inl_meta_dir_names[2] = { "policies", "protectors" };

void inl_protect_close(struct inl_protect *protect)
{
	if (!protect)
		return;
	for (unsigned i = 0; i < protect->n_places; i++)
		inl_protect_close(protect->places[i]);
	if (protect->at)
		protect->ops->close(protect->at);
	free(protect);
}

int inl_protect_add_place(struct inl_protect *protect, const char *root, struct inl_diag *diag)
{
	int err;

	if (protect->n_places == INL_PLACES_MAX)
		return inl_diag_set(diag, -ENOSPC, "more than %d places", INL_PLACES_MAX);
	err = inl_protect_open_dir(root, diag, &protect->places[protect->n_places]);
	if (!err)
		protect->n_places++;
	return err;
}

int inl_protect_lock(struct inl_protect *protect, struct inl_diag *diag)
{
	return protect->ops->lock ? protect->ops->lock(protect->at, diag) : 0;
}

void inl_protect_unlock(struct inl_protect *protect)
{
	if (protect->ops->unlock)
		protect->ops->unlock(protect->at);
}

int inl_metadata_read(struct inl_protect *protect, enum inl_meta_dir dir, const char *name, uint8_t *buf, size_t *len,
		      struct inl_meta_owner *owner, struct inl_diag *diag)
{
	int err = protect->ops->read(protect->at, dir, name, buf, len, owner, diag);

	if (!err && *len > INL_META_MAX)
		return inl_diag_set(diag, -EUCLEAN, "more than %d bytes: no metadata is as large", INL_META_MAX);
	return err;
}

/* ---- protectors -------------------------------------------------------------------------------------------------- */

/* Anybody may make files where fscrypt keeps those of all users. */
static int check_login(const Inl__Meta__Protector *protector, const struct inl_meta_owner *owner, struct inl_diag *diag)
{
	if (inl_meta_kind(protector) == INL_PROTECTOR_LOGIN && owner->uid && owner->uid != protector->uid)
		return inl_diag_set(diag, -EACCES, "is a login protector of user %jd, but belongs to user %u",
				    (intmax_t)protector->uid, owner->uid);
	return 0;
}

static int load_here(struct inl_protect *protect, const char *id, struct inl_meta_owner *owner, struct inl_diag *diag,
		     Inl__Meta__Protector **out)
{
	uint8_t buf[INL_META_MAX + 1];
	Inl__Meta__Protector *protector = NULL;
	size_t len = 0;
	int err = inl_metadata_read(protect, INL_META_PROTECTORS, id, buf, &len, owner, diag);

	if (!err)
		err = inl_meta_protector(buf, len, id, diag, &protector);
	if (!err)
		err = check_login(protector, owner, diag);
	if (err)
		inl_meta_protector_free(protector);
	else
		*out = protector;
	return err;
}

/* What a link says: lines such as UUID=..., PATH=... */
static void first_line(const uint8_t *data, size_t len, char line[256])
{
	size_t n = 0;

	while (n < len && n < 255 && data[n] != '\n' && data[n] != '\0') {
		line[n] = (char)data[n];
		n++;
	}
	line[n] = '\0';
}

/* 0: it is a link, *line is where to; -ENOENT: it is none. */
static int read_link(struct inl_protect *protect, const char *id, char line[256], struct inl_diag *diag)
{
	uint8_t buf[INL_META_MAX + 1];
	char name[INL_PROTECTOR_ID_SIZE + sizeof(INL_META_SUFFIX)];
	struct inl_meta_owner owner;
	size_t len = 0;
	int err;

	memcpy(name, id, INL_PROTECTOR_ID_SIZE - 1);
	memcpy(name + INL_PROTECTOR_ID_SIZE - 1, INL_META_SUFFIX, sizeof(INL_META_SUFFIX));
	err = inl_metadata_read(protect, INL_META_PROTECTORS, name, buf, &len, &owner, diag);
	if (!err)
		first_line(buf, len, line);
	return err;
}

static int load_linked(struct inl_protect *protect, const char *id, const char *link, struct inl_diag *diag,
		       Inl__Meta__Protector **out)
{
	struct inl_meta_owner owner;
	int err = -ENOENT;

	for (unsigned i = 0; i < protect->n_places && err == -ENOENT; i++)
		err = load_here(protect->places[i], id, &owner, diag, out);
	if (err == -ENOENT)
		return inl_diag_set(diag, -ENOLINK, "lies on another file system: %s", link);
	return err;
}

static void describe(const Inl__Meta__Protector *protector, struct inl_protector_info *info)
{
	info->kind = inl_meta_kind(protector);
	snprintf(info->name, sizeof(info->name), "%s", protector->name);
	info->uid = protector->uid;
	if (protector->costs && inl_protector_is_typed(info->kind))
		info->costs = inl_meta_costs(protector->costs);
}

int inl_meta_load_own(struct inl_protect *protect, const char *id, struct inl_meta_owner *owner, struct inl_diag *diag,
		      Inl__Meta__Protector **out)
{
	char link[256];
	int err = read_link(protect, id, link, diag);

	if (!err)
		return inl_diag_set(diag, -ENOLINK, "lies on another file system: %s", link);
	return err == -ENOENT ? load_here(protect, id, owner, diag, out) : err;
}

int inl_meta_load_protector(struct inl_protect *protect, const char *id, struct inl_protector_info *info,
			    struct inl_diag *diag, Inl__Meta__Protector **out)
{
	struct inl_meta_owner owner;
	char link[256] = "";
	bool linked;
	int err;

	if (!inl_meta_is_id(id, INL_PROTECTOR_ID_SIZE - 1))
		return -ENOENT;
	err = read_link(protect, id, link, diag);
	linked = err != -ENOENT;
	if (!linked)
		err = load_here(protect, id, &owner, diag, out);
	else if (!err)
		err = load_linked(protect, id, link, diag, out);
	if (info) {
		*info = (struct inl_protector_info){ .status = err, .linked = linked };
		memcpy(info->id, id, INL_PROTECTOR_ID_SIZE);
		memcpy(info->link, link, sizeof(link));
		if (!err)
			describe(*out, info);
	}
	return err;
}

int inl_protector_info(struct inl_protect *protect, const char *id, struct inl_protector_info *info,
		       struct inl_diag *diag)
{
	Inl__Meta__Protector *protector = NULL;
	int err = inl_meta_load_protector(protect, id, info, diag, &protector);

	inl_meta_protector_free(protector);
	return err;
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

int inl_meta_load_policy(struct inl_protect *protect, const char *id, struct inl_diag *diag, Inl__Meta__Policy **out)
{
	uint8_t buf[INL_META_MAX + 1];
	struct inl_meta_owner owner;
	size_t len = 0;
	int err = inl_metadata_read(protect, INL_META_POLICIES, id, buf, &len, &owner, diag);

	return err ? err : inl_meta_policy(buf, len, id, diag, out);
}

int inl_protected_info(struct inl_protect *protect, const struct inl_key_spec *key, struct inl_policy_info *info,
		       struct inl_diag *diag)
{
	Inl__Meta__Policy *policy = NULL;
	char id[INL_KEY_SPEC_HEX_SIZE];
	int err;

	inl_key_spec_hex(key, id);
	err = inl_meta_load_policy(protect, id, diag, &policy);
	*info = (struct inl_policy_info){ .policy.key = *key, .status = err };
	if (!err)
		inl_meta_describe_policy(policy, info);
	inl_meta_policy_free(policy);
	return err;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* Names, sorted: the order does not depend on how a directory keeps them. */
#define LIST_MAX 4096

struct list {
	size_t id_len, other_len; /* lengths of names that count; those of links count without their ends */
	char (*ids)[INL_KEY_SPEC_HEX_SIZE];
	unsigned n;
};

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Other names are temporary, or nobody's. */
static int note(const char *name, void *arg)
{
	struct list *list = arg;
	size_t len = strlen(name), end = sizeof(INL_META_SUFFIX) - 1;
	char id[INL_KEY_SPEC_HEX_SIZE] = "";

	if (len > end && !strcmp(name + len - end, INL_META_SUFFIX))
		len -= end;
	if (len != list->id_len && len != list->other_len)
		return 0;
	memcpy(id, name, len);
	if (!inl_meta_is_id(id, len))
		return 0;
	if (list->n == LIST_MAX)
		return -EFBIG;
	memcpy(list->ids[list->n++], id, sizeof(id));
	return 0;
}

static int make_list(struct inl_protect *protect, enum inl_meta_dir dir, struct list *list, struct inl_diag *diag)
{
	unsigned n = 0;
	int err;

	list->ids = malloc(sizeof(*list->ids) * LIST_MAX);
	if (!list->ids)
		return -ENOMEM;
	err = protect->ops->list(protect->at, dir, note, list, diag);
	if (err == -EFBIG)
		inl_diag_set(diag, err, ".fscrypt/%s: more than %d files", inl_meta_dir_names[dir], LIST_MAX);
	if (err)
		return err;
	qsort(list->ids, list->n, sizeof(*list->ids), compare_ids);
	/* A protector and a link to one by the same name are one. */
	for (unsigned i = 0; i < list->n; i++) {
		if (!n || strcmp(list->ids[n - 1], list->ids[i]))
			memmove(list->ids[n++], list->ids[i], sizeof(*list->ids));
	}
	list->n = n;
	return 0;
}

int inl_protectors(struct inl_protect *protect, int (*each)(const struct inl_protector_info *info, void *arg),
		   void *arg, struct inl_diag *diag)
{
	struct list list = { .id_len = INL_PROTECTOR_ID_SIZE - 1, .other_len = INL_PROTECTOR_ID_SIZE - 1 };
	struct inl_protector_info info;
	int err = make_list(protect, INL_META_PROTECTORS, &list, diag);

	for (unsigned i = 0; i < list.n && !err; i++) {
		struct inl_diag why = { 0 };

		inl_protector_info(protect, list.ids[i], &info, &why);
		info.why = why;
		/* It went meanwhile. */
		if (info.status != -ENOENT)
			err = each(&info, arg);
	}
	free(list.ids);
	return err;
}

static struct inl_key_spec spec_of(const char *id)
{
	size_t len = strlen(id);
	struct inl_key_spec spec = { .version = len == 2 * INL_KEY_IDENTIFIER_SIZE ? 2 : 1 };

	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(id[i] <= '9' ? id[i] - '0' : id[i] - 'a' + 10);

		spec.bytes[i / 2] |= (uint8_t)(digit << (i % 2 ? 0 : 4));
	}
	return spec;
}

int inl_protected(struct inl_protect *protect, int (*each)(const struct inl_policy_info *info, void *arg), void *arg,
		  struct inl_diag *diag)
{
	struct list list = { .id_len = 2 * INL_KEY_IDENTIFIER_SIZE, .other_len = 2 * INL_KEY_DESCRIPTOR_SIZE };
	struct inl_policy_info info;
	int err = make_list(protect, INL_META_POLICIES, &list, diag);

	for (unsigned i = 0; i < list.n && !err; i++) {
		const struct inl_key_spec spec = spec_of(list.ids[i]);
		struct inl_diag why = { 0 };

		inl_protected_info(protect, &spec, &info, &why);
		info.why = why;
		if (info.status != -ENOENT)
			err = each(&info, arg);
	}
	free(list.ids);
	return err;
}
