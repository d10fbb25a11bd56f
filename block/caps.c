/*
 * block/caps.c: modes and capabilities as values.
 * Not here: who has which capabilities (dev.c).
 * Read more: Linux block/blk-crypto-profile.c by its documentation.
 */
#include "block/own.h"

static const struct mode_row {
	const char *name;
	unsigned key_size, iv_size;
} mode_rows[INL_BLK_MODE_MAX] = {
	[INL_BLK_MODE_AES_256_XTS] = { "AES-256-XTS", 64, 16 },
	[INL_BLK_MODE_AES_128_CBC_ESSIV] = { "AES-128-CBC-ESSIV", 16, 16 },
	[INL_BLK_MODE_ADIANTUM] = { "Adiantum", 32, 32 },
	[INL_BLK_MODE_SM4_XTS] = { "SM4-XTS", 32, 16 },
};

static const struct mode_row *mode_row(enum inl_blk_mode mode)
{
	static const struct mode_row none;

	return (unsigned)mode < INL_BLK_MODE_MAX ? &mode_rows[mode] : &none;
}

const char *inl_blk_mode_name(enum inl_blk_mode mode)
{
	return mode_row(mode)->name;
}

unsigned inl_blk_mode_key_size(enum inl_blk_mode mode)
{
	return mode_row(mode)->key_size;
}

unsigned inl_blk_mode_iv_size(enum inl_blk_mode mode)
{
	return mode_row(mode)->iv_size;
}

bool inl_caps_supports(const struct inl_caps *caps, const struct inl_key_config *cfg)
{
	if (!mode_row(cfg->mode)->name || !inl_power_of_two(cfg->data_unit_size) || !inl_power_of_two(cfg->type))
		return false;
	return (caps->modes[cfg->mode] & cfg->data_unit_size) && caps->max_dun_bytes >= cfg->dun_bytes &&
	       (caps->key_types & cfg->type);
}

void inl_caps_intersect(struct inl_caps *caps, const struct inl_caps *with)
{
	static const struct inl_caps nothing;

	if (!with)
		with = &nothing;
	for (unsigned i = 0; i < INL_BLK_MODE_MAX; i++)
		caps->modes[i] &= with->modes[i];
	if (caps->max_dun_bytes > with->max_dun_bytes)
		caps->max_dun_bytes = with->max_dun_bytes;
	caps->key_types &= with->key_types;
}

bool inl_caps_superset(const struct inl_caps *caps, const struct inl_caps *ref)
{
	for (unsigned i = 0; i < INL_BLK_MODE_MAX; i++) {
		if (ref->modes[i] & ~caps->modes[i])
			return false;
	}
	return caps->max_dun_bytes >= ref->max_dun_bytes && !(ref->key_types & ~caps->key_types);
}
