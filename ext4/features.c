/*
 * ext4/features.c: the table of ext4's features: what Inlay can do with a volume that has them.
 * Not here: reading the features from a superblock is; acting on them is not.
 * Read more: Linux Documentation/filesystems/ext4/; README.md, "Volumes".
 */
#include "ext4/own.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum set { COMPAT, INCOMPAT, RO_COMPAT };

static const struct row {
	enum set set;
	uint32_t bit;
	const char *name; /* as mke2fs -O and tune2fs -l say it */
	enum inl_access access;
	const char *why;
} rows[] = {
	{ COMPAT, 0x0001, "dir_prealloc", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0002, "imagic_inodes", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0004, "has_journal", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0008, "ext_attr", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0010, "resize_inode", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0020, "dir_index", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0200, "sparse_super2", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0400, "fast_commit", INL_ACCESS_RW, "" },
	{ COMPAT, 0x0800, "stable_inodes", INL_ACCESS_RW, "" },
	{ COMPAT, 0x1000, "orphan_file", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0001, "compression", INL_ACCESS_REFUSED, "compressed files cannot be read" },
	{ INCOMPAT, 0x0002, "filetype", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0004, "needs_recovery", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0008, "journal_dev", INL_ACCESS_REFUSED, "this is an external journal, not a file system" },
	{ INCOMPAT, 0x0010, "meta_bg", INL_ACCESS_RO, "descriptors outside their usual place are only read" },
	{ INCOMPAT, 0x0040, "extent", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0080, "64bit", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0100, "mmp", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0200, "flex_bg", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x0400, "ea_inode", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x1000, "dirdata", INL_ACCESS_REFUSED, "data in directory entries is not understood" },
	{ INCOMPAT, 0x2000, "metadata_csum_seed", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x4000, "large_dir", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x8000, "inline_data", INL_ACCESS_RO, "files kept in their inodes are only read" },
	{ INCOMPAT, 0x10000, "encrypt", INL_ACCESS_RW, "" },
	{ INCOMPAT, 0x20000, "casefold", INL_ACCESS_RO, "names are only compared exactly" },
	{ RO_COMPAT, 0x0001, "sparse_super", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0002, "large_file", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0008, "huge_file", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0010, "uninit_bg", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0020, "dir_nlink", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0040, "extra_isize", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0080, "has_snapshot", INL_ACCESS_RO, "snapshots are not kept up" },
	{ RO_COMPAT, 0x0100, "quota", INL_ACCESS_RO, "quotas are not counted" },
	{ RO_COMPAT, 0x0200, "bigalloc", INL_ACCESS_RO, "clusters of blocks are only read" },
	{ RO_COMPAT, 0x0400, "metadata_csum", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x0800, "replica", INL_ACCESS_RO, "replicas are not kept up" },
	{ RO_COMPAT, 0x1000, "read-only", INL_ACCESS_RO, "the volume says so itself" },
	{ RO_COMPAT, 0x2000, "project", INL_ACCESS_RO, "project quotas are not counted" },
	{ RO_COMPAT, 0x4000, "shared_blocks", INL_ACCESS_RO, "files share blocks" },
	{ RO_COMPAT, 0x8000, "verity", INL_ACCESS_RW, "" },
	{ RO_COMPAT, 0x10000, "orphan_present", INL_ACCESS_RO, "the orphan file has entries: let e2fsck remove them" },
};

static const struct row *find(enum set set, uint32_t bit)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].set == set && rows[i].bit == bit)
			return &rows[i];
	}
	return NULL;
}

static void add(struct inl_volume *vol, enum set set, unsigned bit)
{
	static const char letters[] = { [COMPAT] = 'C', [INCOMPAT] = 'I', [RO_COMPAT] = 'R' };
	static const enum inl_access unknown[] = {
		[COMPAT] = INL_ACCESS_RW, [INCOMPAT] = INL_ACCESS_REFUSED, [RO_COMPAT] = INL_ACCESS_RO
	};
	struct inl_feature *feature = &vol->features[vol->n_features];
	const struct row *row = find(set, 1u << bit);

	if (row) {
		*feature = (struct inl_feature){ row->name, row->access, row->why };
	} else {
		char *name = vol->feature_names[vol->n_features];

		snprintf(name, sizeof(vol->feature_names[0]), "FEATURE_%c%u", letters[set], bit);
		*feature = (struct inl_feature){ name, unknown[set], unknown[set] == INL_ACCESS_RW ? "" : "unknown" };
	}
	vol->n_features++;
	if (feature->access > vol->info.access)
		vol->info.access = feature->access;
}

int inl_features_check(struct inl_volume *vol, const uint8_t *sb, struct inl_diag *diag)
{
	const uint32_t words[] = { [COMPAT] = inl_load_le32(sb + 0x5c),
				   [INCOMPAT] = inl_load_le32(sb + 0x60),
				   [RO_COMPAT] = inl_load_le32(sb + 0x64) };

	vol->n_features = 0;
	vol->info.access = INL_ACCESS_RW;
	for (unsigned set = COMPAT; set <= RO_COMPAT; set++) {
		for (unsigned bit = 0; bit < 32; bit++) {
			if (words[set] & (1u << bit))
				add(vol, set, bit);
		}
	}
	for (unsigned i = 0; i < vol->n_features; i++) {
		if (vol->features[i].access == INL_ACCESS_REFUSED)
			return inl_diag_set(diag, -EOPNOTSUPP, "the volume has the feature %s, which is refused: %s",
					    vol->features[i].name, vol->features[i].why);
	}
	return 0;
}

bool inl_volume_feature(const struct inl_volume *vol, unsigned i, struct inl_feature *feature)
{
	if (i >= vol->n_features)
		return false;
	*feature = vol->features[i];
	return true;
}
