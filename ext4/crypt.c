/*
 * ext4/crypt.c: what encryption means for inodes: their contexts, who inherits what, what may be in which directory.
 * Not here: what a context says (fscrypt/); contents (data.c, write.c), names (dir.c, namei.c), targets (symlink.c).
 * Read more: Linux Documentation/filesystems/fscrypt.rst, "Encryption policies", "Access semantics"; inlay/volume.h.
 */
#include "ext4/change.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#define XATTR_INDEX_ENCRYPTION 9
#define XATTR_NAME_CONTEXT     "c"

static bool can_be_encrypted(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode);
}

static enum inl_crypt_kind kind_of(uint32_t mode)
{
	return S_ISREG(mode) ? INL_CRYPT_REG : S_ISDIR(mode) ? INL_CRYPT_DIR : INL_CRYPT_LNK;
}

/* A context that is missing or damaged is remembered, not an error: the inode can still be looked at. */
int inl_crypt_load(struct inl_inode *inode)
{
	uint32_t flags = inode->raw.i_flags, mode = inode->raw.i_mode;
	uint8_t context[INL_CONTEXT_SIZE_MAX];
	struct inl_crypt_info *info = NULL;
	size_t len;
	int err;

	if (!(flags & EXT4_FL_ENCRYPT) || !can_be_encrypted(mode))
		return 0;
	err = inl_raw_xattr_get(inode, XATTR_INDEX_ENCRYPTION, XATTR_NAME_CONTEXT, context, sizeof(context), &len, NULL);
	if (!err)
		err = inl_crypt_info_new(inode->vol->crypt, inode->ino, kind_of(mode), flags & EXT4_FL_CASEFOLD, context,
					 len, &info);
	if (err == -ENOMEM || err == -EAGAIN)
		return err;
	inode->crypt = info;
	inode->encrypted = true;
	inode->crypt_status = !err ? 0 : err == -EIO ? -EIO : -EUCLEAN;
	return 0;
}

/* ---- what may be where ------------------------------------------------------------------------------------------- */

bool inl_crypt_permitted(const struct inl_inode *dir, const struct inl_inode *inode)
{
	const struct inl_crypt_info *outer = dir->crypt, *inner = inode->crypt;

	if (!dir->encrypted || !can_be_encrypted(inode->type))
		return true;
	return outer && inner && inl_policy_equal(inl_crypt_info_policy(outer), inl_crypt_info_policy(inner));
}

int inl_crypt_check_child(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag)
{
	if (inl_crypt_permitted(dir, inode))
		return 0;
	return inl_diag_set(diag, -EPERM, "inode %u is not encrypted as its directory is: somebody else has put it there",
			    inode->ino);
}

int inl_crypt_check_move(const struct inl_inode *dir, const struct inl_inode *inode, struct inl_diag *diag)
{
	if (inl_crypt_permitted(dir, inode))
		return 0;
	return inl_diag_set(diag, -EXDEV, "the directory is encrypted, and what would come into it is not encrypted alike");
}

bool inl_crypt_inherits(const struct inl_inode *dir, uint32_t mode)
{
	return dir->encrypted && can_be_encrypted(mode);
}

/* ---- new inodes -------------------------------------------------------------------------------------------------- */

static int draw_nonce(struct inl_volume *vol, const uint8_t *given, uint8_t nonce[INL_FILE_NONCE_SIZE],
		      struct inl_diag *diag)
{
	if (given) {
		memcpy(nonce, given, INL_FILE_NONCE_SIZE);
		return 0;
	}
	/* What follows from a seed is the same for whatever is encrypted under it. */
	if (vol->draws.fixed)
		return inl_diag_set(diag, -EINVAL, "an encrypted inode of such a volume needs a nonce of its own");
	return inl_draw(vol, nonce, INL_FILE_NONCE_SIZE);
}

static int make_context(struct inl_volume *vol, const struct inl_policy *policy, const uint8_t *given,
			enum inl_crypt_kind kind, uint64_t ino, struct inl_new_crypt *new, struct inl_diag *diag)
{
	uint8_t nonce[INL_FILE_NONCE_SIZE];
	int err = draw_nonce(vol, given, nonce, diag);

	if (err)
		return err;
	new->len = inl_policy_to_context(policy, nonce, new->context);
	return inl_crypt_info_new(vol->crypt, ino, kind, false, new->context, new->len, &new->info);
}

int inl_new_crypt_init(struct inl_inode *dir, uint32_t mode, const uint8_t *nonce, struct inl_new_crypt *new,
		       struct inl_diag *diag)
{
	struct inl_crypt_info *parent = dir->crypt;
	int err;

	memset(new, 0, sizeof(*new));
	if (!parent || !can_be_encrypted(mode))
		return 0;
	err = make_context(dir->vol, inl_crypt_info_policy(parent), nonce, kind_of(mode), 0, new, diag);
	if (!err)
		err = inl_crypt_info_unlock(new->info, diag);
	if (err)
		inl_new_crypt_done(new);
	return err;
}

void inl_new_crypt_done(struct inl_new_crypt *new)
{
	inl_crypt_info_free(new->info);
	new->info = NULL;
}

/* flags: INL_XATTR_CREATE, or 0: a damaged volume may have a context on what is not encrypted. */
static int put_context(struct inl_handle *op, struct inl_inode *inode, const struct inl_new_crypt *new, int flags)
{
	return inl_raw_xattr_set(op, inode, XATTR_INDEX_ENCRYPTION, XATTR_NAME_CONTEXT, new->context, new->len, flags);
}

int inl_new_crypt_give(struct inl_handle *op, struct inl_inode *inode, struct inl_new_crypt *new)
{
	int err;

	if (!new->info)
		return 0;
	err = put_context(op, inode, new, INL_XATTR_CREATE);
	if (err)
		return err;
	inl_crypt_info_set_ino(new->info, inode->ino);
	inode->raw.i_flags |= EXT4_FL_ENCRYPT;
	inode->crypt = new->info;
	inode->encrypted = true;
	return 0;
}

/* ---- the policy of a directory ----------------------------------------------------------------------------------- */

struct setting {
	struct inl_inode *dir;
	struct inl_new_crypt new;
	bool unready; /* nothing needs to be there that it takes to use it */
	struct inl_diag *diag;
};

static int see_empty(struct inl_handle *op, void *arg)
{
	const struct setting *setting = arg;
	struct inl_inode *dir = setting->dir;

	if (dir->encrypted)
		return -EEXIST;
	return dir->raw.i_links_count ? inl_dir_empty(op, dir) : -ENOENT;
}

static void undo_policy(struct inl_volume *vol, void *what)
{
	struct inl_inode *dir;

	(void)vol;
	memcpy(&dir, what, sizeof(dir));
	dir->encrypted = false;
	dir->crypt = NULL;
}

/*
 * Others look without the lock: they see that the directory is encrypted only when nothing can fail any more. The end of
 * the operation changes the inode's block, for which there would have to be memory: so that is changed here already.
 */
static int set_policy_op(struct inl_handle *op, void *arg)
{
	struct setting *setting = arg;
	struct inl_inode *dir = setting->dir;
	uint64_t pblk;
	uint32_t at;
	uint8_t *bytes;
	int err = see_empty(op, setting);

	if (!err)
		err = inl_inode_modify(op, dir);
	if (!err)
		err = put_context(op, dir, &setting->new, 0);
	if (!err)
		err = inl_inode_place(dir->vol, dir->ino, &pblk, &at);
	if (!err)
		err = inl_block_change(op, pblk, &bytes);
	if (!err)
		err = inl_op_undo(op, undo_policy, &dir, sizeof(dir));
	if (err)
		return err;
	inl_inode_set_times(dir, INL_TIME_C, inl_now(inl_op_vol(op)));
	dir->raw.i_flags |= EXT4_FL_ENCRYPT;
	dir->crypt = setting->new.info;
	dir->encrypted = true;
	return 0;
}

/* It has one already. */
static int compare_policy(const struct inl_inode *dir, const struct inl_policy *policy, struct inl_diag *diag)
{
	const struct inl_crypt_info *info = dir->crypt;

	if (info && inl_policy_equal(inl_crypt_info_policy(info), policy))
		return 0;
	return inl_diag_set(diag, -EEXIST, "is encrypted already, with another policy");
}

/* What there is to say before anything is changed, in the order of Linux. */
static int check_setting(struct setting *setting, const struct inl_policy *policy)
{
	struct inl_inode *dir = setting->dir;
	struct inl_volume *vol = dir->vol;
	int err;

	if (!S_ISDIR(dir->type))
		return inl_diag_set(setting->diag, -ENOTDIR, "is not a directory");
	err = inl_op_look(vol, see_empty, setting);
	if (err)
		return err;
	err = setting->unready ?
		      inl_fscrypt_policy_valid(vol->crypt, policy, dir->lasting & EXT4_FL_CASEFOLD, setting->diag) :
		      inl_fscrypt_policy_ready(vol->crypt, policy, dir->lasting & EXT4_FL_CASEFOLD, setting->diag);
	if (err)
		return err;
	if (dir->ino == INL_ROOT_INO)
		return inl_diag_set(setting->diag, -EPERM, "the root of a volume cannot be encrypted");
	if (dir->lasting & (EXT4_FL_INLINE | EXT4_FL_CASEFOLD))
		return inl_diag_set(setting->diag, -EOPNOTSUPP, "inline directories, and those without case, are only read");
	return 0;
}

static int give_policy(struct inl_inode *dir, const struct inl_policy *policy, const uint8_t *nonce, bool unready,
		       struct inl_diag *diag)
{
	struct setting setting = { .dir = dir, .unready = unready, .diag = diag };
	struct inl_volume *vol = dir->vol;
	int err;

	if (!vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume is open for reading only");
	if (!ext2fs_has_feature_encrypt(vol->fs->super))
		return inl_diag_set(diag, -EOPNOTSUPP, "the volume has not the feature encrypt (tune2fs -O encrypt)");
	if (policy->version != 1 && policy->version != 2)
		return inl_diag_set(diag, -EINVAL, "unknown policy version %u", policy->version);
	if (dir->encrypted)
		return compare_policy(dir, policy, diag);
	err = check_setting(&setting, policy);
	if (!err)
		err = make_context(vol, policy, nonce, INL_CRYPT_DIR, dir->ino, &setting.new, diag);
	if (!err)
		err = inl_op_run(vol, INL_MIN(2 + inl_xattr_credits(vol), inl_op_credits_max(vol)), set_policy_op, &setting,
				 diag);
	if (err)
		inl_new_crypt_done(&setting.new);
	/* Somebody else was faster. */
	return err == -EEXIST ? compare_policy(dir, policy, diag) : err;
}

int inl_set_policy(struct inl_inode *dir, const struct inl_policy *policy, const uint8_t *nonce, struct inl_diag *diag)
{
	return give_policy(dir, policy, nonce, false, diag);
}

int inl_set_policy_unready(struct inl_inode *dir, const struct inl_policy *policy, struct inl_diag *diag)
{
	return give_policy(dir, policy, NULL, true, diag);
}

/* ---- the salt of a volume ---------------------------------------------------------------------------------------- */

static bool is_set(const uint8_t salt[INL_PW_SALT_SIZE])
{
	static const uint8_t none[INL_PW_SALT_SIZE];

	return memcmp(salt, none, INL_PW_SALT_SIZE);
}

#define SALT_AT (EXT4_SUPER_OFFSET + offsetof(struct ext2_super_block, s_encrypt_pw_salt))

static int look_at_salt(struct inl_handle *op, void *arg)
{
	struct inl_volume *vol = inl_op_vol(op);
	const uint8_t *bytes;
	int err = inl_block_look(op, SALT_AT >> vol->block_bits, &bytes);

	if (!err)
		memcpy(arg, bytes + (SALT_AT & (vol->block_size - 1)), INL_PW_SALT_SIZE);
	return err;
}

/* arg: the one that was drawn; or becomes the one that somebody else was faster with. */
static int make_salt(struct inl_handle *op, void *arg)
{
	uint8_t there[INL_PW_SALT_SIZE], *sb;
	int err = look_at_salt(op, there);

	if (err)
		return err;
	if (is_set(there)) {
		memcpy(arg, there, sizeof(there));
		return 0;
	}
	err = inl_super_change(op, &sb);
	if (err)
		return err;
	memcpy(sb + offsetof(struct ext2_super_block, s_encrypt_pw_salt), arg, INL_PW_SALT_SIZE);
	inl_super_csum(inl_op_vol(op), sb);
	return 0;
}

int inl_volume_pw_salt(struct inl_volume *vol, uint8_t salt[INL_PW_SALT_SIZE], struct inl_diag *diag)
{
	int err;

	if (!ext2fs_has_feature_encrypt(vol->fs->super))
		return inl_diag_set(diag, -EOPNOTSUPP, "the volume has not the feature encrypt (tune2fs -O encrypt)");
	memcpy(salt, vol->fs->super->s_encrypt_pw_salt, INL_PW_SALT_SIZE);
	if (is_set(salt))
		return 0;
	if (!vol->txn)
		return inl_diag_set(diag, -EROFS, "the volume has no salt, and is open for reading only");
	err = inl_op_look(vol, look_at_salt, salt);
	if (err || is_set(salt))
		return err;
	err = inl_draw(vol, salt, INL_PW_SALT_SIZE);
	return err ? err : inl_op_run(vol, 1, make_salt, salt, diag);
}
