/*
 * tests/unit/routes_tree.c: random trees of devices, their SPECs, and where each of them places a byte.
 * Not here: what the bytes are (routes_media.c), the I/O (test_routes.c).
 * Read more: inlay/driver.h; inlay(1), "SPEC".
 */
#include "routes_model.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB 1024u

static const char *const driver_names[] = { "ram", "file", "slice", "linear", "stripe", "engine", "fault" };

void inl_rt_fill(struct rt_rng *rng, uint8_t *bytes, size_t len)
{
	size_t at = 0;

	for (; at + 8 <= len; at += 8) {
		uint64_t v = rt_next(rng);

		memcpy(bytes + at, &v, 8);
	}
	for (; at < len; at++)
		bytes[at] = (uint8_t)rt_next(rng);
}

/* ---- the machine ------------------------------------------------------------------------------------------------ */

static uint32_t probe(const char *folder, bool direct)
{
	char path[RT_PATH_LEN], spec[RT_PATH_LEN + 32];
	struct inl_dev *dev = NULL;
	uint32_t block = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/probe", folder);
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	snprintf(spec, sizeof(spec), direct ? "file(%s, direct)" : "file(%s)", path);
	if (ftruncate(fd, 64 * KIB) == 0 && inl_dev_open(spec, INL_OPEN_WRITE, NULL, &dev) == 0)
		block = inl_dev_block_size(dev);
	inl_dev_close(dev);
	close(fd);
	unlink(path);
	return block;
}

static bool make_folder(char *folder, size_t size, const char *parent)
{
	if (snprintf(folder, size, "%s/inlay-routes-XXXXXX", parent) < (int)size && mkdtemp(folder))
		return true;
	folder[0] = '\0';
	return false;
}

int inl_rt_place_init(struct rt_place *place)
{
	const char *tmp = getenv("TMPDIR");

	make_folder(place->folder[0], sizeof(place->folder[0]), "/dev/shm");
	make_folder(place->folder[1], sizeof(place->folder[1]), tmp ? tmp : "/tmp");
	for (unsigned i = 0; i < 2; i++)
		for (unsigned direct = 0; direct < 2 && place->folder[i][0]; direct++)
			place->block[i][direct] = probe(place->folder[i], direct);
	return place->block[0][0] || place->block[1][0] ? 0 : -ENOENT;
}

void inl_rt_place_done(struct rt_place *place)
{
	for (unsigned i = 0; i < 2; i++)
		if (place->folder[i][0])
			rmdir(place->folder[i]);
}

/* ---- drawing ---------------------------------------------------------------------------------------------------- */

static struct rt_node *add_node(struct rt_tree *tree, enum rt_kind kind)
{
	struct rt_node *node = &tree->node[tree->n_nodes];

	memset(node, 0, sizeof(*node));
	node->kind = kind;
	node->index = tree->n_nodes++;
	node->unit_max = INL_UNIT_SIZE_MAX;
	return node;
}

static bool is_leaf(const struct rt_node *node)
{
	return node->kind == RT_RAM || node->kind == RT_FILE;
}

static uint32_t round_down(uint64_t n, uint32_t to)
{
	return n / to * to;
}

static uint64_t draw_size(struct rt_rng *rng)
{
	uint64_t size = rt_between(rng, 24, rt_chance(rng, 10) ? 128 : 56) * 4 * KIB;

	if (rt_chance(rng, 20))
		size += rt_below(rng, 8) * RT_SECTOR;
	if (rt_chance(rng, 10))
		size += rt_below(rng, RT_SECTOR);
	return size;
}

/* Give a file its first bytes. Memory is zeroed. */
static void make_file(struct rt_node *leaf, struct rt_rng *rng)
{
	int fd = open(leaf->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		abort();
	inl_rt_fill(rng, leaf->medium, leaf->size);
	if (ftruncate(fd, (off_t)leaf->declared) || pwrite(fd, leaf->medium, leaf->size, 0) != (ssize_t)leaf->size)
		abort();
	close(fd);
}

static void make_medium(struct rt_node *leaf, struct rt_rng *rng)
{
	size_t n = leaf->size / RT_SECTOR;

	leaf->medium = calloc(1, leaf->size);
	leaf->unknown = calloc(n, sizeof(*leaf->unknown));
	leaf->stamp = calloc(n, sizeof(*leaf->stamp));
	leaf->busy = calloc(n, sizeof(*leaf->busy));
	if (!leaf->medium || !leaf->unknown || !leaf->stamp || !leaf->busy)
		abort();
	if (leaf->kind == RT_FILE)
		make_file(leaf, rng);
}

static struct rt_node *draw_leaf(struct rt_tree *tree, struct rt_rng *rng, const struct rt_place *place)
{
	bool disk = !place->block[0][0] || (place->block[1][0] && rt_chance(rng, 5));
	bool direct = rt_chance(rng, 40) && place->block[disk][1];
	struct rt_node *leaf = add_node(tree, place->block[disk][0] && rt_chance(rng, 30) ? RT_FILE : RT_RAM);

	leaf->declared = draw_size(rng);
	leaf->block = rt_chance(rng, 30) ? RT_SECTOR << rt_below(rng, 4) : RT_SECTOR;
	if (leaf->kind == RT_FILE) {
		leaf->direct = direct;
		leaf->block = place->block[disk][direct];
		if (direct) /* other sizes are refused */
			leaf->declared = round_down(leaf->declared, leaf->block);
		snprintf(leaf->path, sizeof(leaf->path), "%s/%u", place->folder[disk], leaf->index);
	}
	leaf->size = round_down(leaf->declared, leaf->block);
	make_medium(leaf, rng);
	tree->n_leaves++;
	return leaf;
}

static void draw_slice(struct rt_node *node, struct rt_rng *rng)
{
	struct rt_node *child = node->child[0];
	uint64_t blocks = child->size / child->block, some = blocks / 4;

	node->block = child->block;
	node->start[0] = rt_below(rng, some + 1) * child->block;
	if (rt_chance(rng, 40))
		node->start[0] = 0;
	node->size = (blocks - node->start[0] / child->block - rt_below(rng, some + 1)) * child->block;
}

static uint32_t largest_block(const struct rt_node *node)
{
	uint32_t block = RT_SECTOR;

	for (unsigned i = 0; i < node->n_children; i++)
		if (node->child[i]->block > block)
			block = node->child[i]->block;
	return block;
}

/* The children one after the other, each cut to whole blocks. */
static void draw_linear(struct rt_node *node)
{
	node->block = largest_block(node);
	for (unsigned i = 0; i < node->n_children; i++) {
		node->start[i + 1] = node->start[i] + round_down(node->child[i]->size, node->block);
		while (i + 1 < node->n_children && node->start[i + 1] % node->unit_max)
			node->unit_max /= 2;
	}
	node->size = node->start[node->n_children];
}

/* Chunks in turns; every child is used as far as the smallest has whole chunks. */
static void draw_stripe(struct rt_node *node, struct rt_rng *rng)
{
	uint64_t least = UINT64_MAX;

	node->block = largest_block(node);
	for (unsigned i = 0; i < node->n_children; i++)
		if (node->child[i]->size < least)
			least = node->child[i]->size;
	do
		node->chunk = RT_SECTOR << rt_below(rng, 8);
	while (node->chunk < node->block || node->chunk > least);
	node->size = round_down(least, node->chunk) * (uint64_t)node->n_children;
	node->unit_max = node->chunk;
}

static void draw_caps(struct rt_caps *caps, struct rt_rng *rng)
{
	static const uint32_t widths[] = { 4, 8, 8, 16, 16, 16 };
	uint32_t units = 0;

	memset(caps, 0, sizeof(*caps));
	for (uint32_t unit = 64; unit <= INL_UNIT_SIZE_MAX; unit *= 2)
		if (rt_chance(rng, 70))
			units |= unit;
	if (!units || rt_chance(rng, 30))
		units = 4096;
	if (rt_chance(rng, 85))
		caps->units[INL_BLK_MODE_AES_256_XTS] = units;
	if (rt_chance(rng, 50) || !caps->units[INL_BLK_MODE_AES_256_XTS])
		caps->units[INL_BLK_MODE_AES_128_CBC_ESSIV] = units;
	caps->dun_bytes = widths[rt_below(rng, 6)];
}

/* Most engines of a tree can the same, so that stacks of them can something too. */
static void draw_engine(const struct rt_tree *tree, struct rt_node *node, struct rt_rng *rng)
{
	static const int slots[] = { 0, 1, 1, 1, 1, 2, 4 };

	node->slots = slots[rt_below(rng, 7)];
	node->threads = rt_chance(rng, 25) ? (int)rt_between(rng, 1, 2) : 0;
	node->latency_us = rt_chance(rng, 3) ? (int)rt_between(rng, 1, 20) : 0;
	node->own = tree->common;
	if (rt_chance(rng, 25))
		draw_caps(&node->own, rng);
}

static void draw_limits(struct rt_node *node, struct rt_rng *rng)
{
	node->refuses_fallback = rt_chance(rng, 6);
	node->bounce_kib = rt_chance(rng, 40) ? 64u << (rt_chance(rng, 30) ? rt_below(rng, 3) : 0) : 0;
}

static enum rt_kind draw_kind(struct rt_rng *rng)
{
	static const enum rt_kind kinds[] = { RT_ENGINE, RT_ENGINE, RT_ENGINE, RT_ENGINE, RT_LINEAR, RT_LINEAR,
					      RT_LINEAR, RT_STRIPE, RT_STRIPE, RT_STRIPE, RT_SLICE,  RT_SLICE };

	return rt_chance(rng, 7) ? RT_FAULT : kinds[rt_below(rng, 12)];
}

static struct rt_node *draw_node(struct rt_tree *, struct rt_rng *, const struct rt_place *, unsigned depth,
				 bool engine);

static void draw_children(struct rt_tree *tree, struct rt_node *node, struct rt_rng *rng, const struct rt_place *place,
			  unsigned depth)
{
	bool many = node->kind == RT_LINEAR || node->kind == RT_STRIPE, engines = many && rt_chance(rng, 50);
	unsigned n = many ? (unsigned)rt_between(rng, 2, tree->n_leaves < 3 ? 3 : 2) : 1;

	for (unsigned i = 0; i < n; i++) {
		node->child[i] = draw_node(tree, rng, place, depth - 1, engines);
		node->n_children++;
	}
	node->block = node->child[0]->block;
	node->size = node->child[0]->size;
}

/* engine: if it is no leaf, then an engine */
static struct rt_node *draw_node(struct rt_tree *tree, struct rt_rng *rng, const struct rt_place *place, unsigned depth,
				 bool engine)
{
	struct rt_node *node;

	if (depth <= 1 || (!engine && (rt_chance(rng, 10) || tree->n_leaves >= 5))) {
		node = draw_leaf(tree, rng, place);
	} else {
		node = add_node(tree, engine ? RT_ENGINE : draw_kind(rng));
		draw_children(tree, node, rng, place, depth);
	}
	if (node->kind == RT_SLICE)
		draw_slice(node, rng);
	if (node->kind == RT_LINEAR)
		draw_linear(node);
	if (node->kind == RT_STRIPE)
		draw_stripe(node, rng);
	if (node->kind == RT_ENGINE)
		draw_engine(tree, node, rng);
	if (node->kind == RT_FAULT)
		node->delay_us = rt_chance(rng, 40) ? (unsigned)rt_between(rng, 1, 20) : 0;
	draw_limits(node, rng);
	return node;
}

/* ---- SPECs ------------------------------------------------------------------------------------------------------ */

struct text {
	char *at, *end;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *text, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text->at, (size_t)(text->end - text->at), fmt, args);
	va_end(args);
	if (n < 0 || n >= text->end - text->at)
		abort();
	text->at += n;
}

static void add_engine(struct text *text, const struct rt_node *node)
{
	uint32_t xts = node->own.units[INL_BLK_MODE_AES_256_XTS], essiv = node->own.units[INL_BLK_MODE_AES_128_CBC_ESSIV];
	const char *plus = "";

	add(text, ", slots=%d, modes=%s%s%s, dun_bytes=%u, unit=", node->slots, xts ? "AES-256-XTS" : "",
	    xts && essiv ? "+" : "", essiv ? "AES-128-CBC-ESSIV" : "", node->own.dun_bytes);
	for (uint32_t unit = INL_UNIT_SIZE_MIN; unit <= INL_UNIT_SIZE_MAX; unit *= 2)
		if ((xts | essiv) & unit) {
			add(text, "%s%u", plus, unit);
			plus = "+";
		}
	if (node->threads)
		add(text, ", threads=%d", node->threads);
	if (node->latency_us)
		add(text, ", latency=%dus", node->latency_us);
}

static void add_spec(struct text *text, const struct rt_node *node)
{
	add(text, "%s(", driver_names[node->kind]);
	for (unsigned i = 0; i < node->n_children; i++) {
		add(text, "%s", i ? ", " : "");
		add_spec(text, node->child[i]);
	}
	if (node->kind == RT_RAM)
		add(text, "%llu", (unsigned long long)node->declared);
	if (node->kind == RT_RAM && node->block != RT_SECTOR)
		add(text, ", block_size=%u", node->block);
	if (node->kind == RT_FILE)
		add(text, "%s%s", node->path, node->direct ? ", direct" : "");
	if (node->kind == RT_SLICE)
		add(text, ", offset=%llu, length=%llu", (unsigned long long)node->start[0], (unsigned long long)node->size);
	if (node->kind == RT_STRIPE)
		add(text, ", chunk=%u", node->chunk);
	if (node->kind == RT_ENGINE)
		add_engine(text, node);
	if (node->kind == RT_FAULT && node->delay_us)
		add(text, ", delay=%uus", node->delay_us);
	if (node->bounce_kib)
		add(text, ", bounce=%uK", node->bounce_kib);
	if (node->refuses_fallback)
		add(text, ", fallback=off");
	add(text, ")");
}

static void make_spec(struct rt_tree *tree)
{
	struct text text = { tree->spec, tree->spec + sizeof(tree->spec) };

	add_spec(&text, tree->root);
}

void inl_rt_tree_draw(struct rt_tree *tree, struct rt_rng *rng, const struct rt_place *place)
{
	tree->n_nodes = tree->n_leaves = 0;
	draw_caps(&tree->common, rng);
	tree->root = draw_node(tree, rng, place, (unsigned)rt_between(rng, 1, 4), false);
	make_spec(tree);
}

void inl_rt_tree_redraw(struct rt_tree *tree, struct rt_rng *rng)
{
	for (unsigned i = 0; i < tree->n_nodes; i++) {
		if (tree->node[i].kind == RT_ENGINE)
			draw_engine(tree, &tree->node[i], rng);
		draw_limits(&tree->node[i], rng);
	}
	make_spec(tree);
}

void inl_rt_tree_free(struct rt_tree *tree)
{
	for (unsigned i = 0; i < tree->n_nodes; i++) {
		struct rt_node *node = &tree->node[i];

		if (node->kind == RT_FILE)
			unlink(node->path);
		free(node->medium);
		free(node->unknown);
		free(node->stamp);
		free(node->busy);
	}
	tree->n_nodes = 0;
}

bool inl_rt_tree_lasting(const struct rt_tree *tree)
{
	for (unsigned i = 0; i < tree->n_nodes; i++)
		if (tree->node[i].kind == RT_RAM)
			return false;
	return true;
}

/* ---- what a node can do ----------------------------------------------------------------------------------------- */

bool inl_rt_below(const struct rt_node *a, const struct rt_node *b)
{
	bool found = a == b;

	for (unsigned i = 0; i < a->n_children; i++)
		found |= inl_rt_below(a->child[i], b);
	return found;
}

bool inl_rt_has_engine(const struct rt_node *node)
{
	bool found = node->kind == RT_ENGINE;

	for (unsigned i = 0; i < node->n_children; i++)
		found |= inl_rt_has_engine(node->child[i]);
	return found;
}

/* An engine stands for all below it; a stack can what all its children can, with units that it does not cut. */
bool inl_rt_native(const struct rt_node *node, const struct inl_key_config *cfg)
{
	if (node->kind == RT_ENGINE)
		return (node->own.units[cfg->mode] & cfg->data_unit_size) && cfg->dun_bytes <= node->own.dun_bytes;
	if (is_leaf(node) || cfg->data_unit_size > node->unit_max)
		return false;
	for (unsigned i = 0; i < node->n_children; i++)
		if (!inl_rt_native(node->child[i], cfg))
			return false;
	return true;
}

bool inl_rt_fallback(const struct rt_node *node)
{
	bool may = !node->refuses_fallback;

	for (unsigned i = 0; i < node->n_children; i++)
		may &= inl_rt_fallback(node->child[i]);
	return may;
}

/* ---- where bytes are -------------------------------------------------------------------------------------------- */

static struct rt_node *step_down(struct rt_node *node, uint64_t *pos)
{
	unsigned i = 0;

	switch (node->kind) {
	case RT_SLICE:
		*pos += node->start[0];
		break;
	case RT_LINEAR:
		while (*pos >= node->start[i + 1])
			i++;
		*pos -= node->start[i];
		break;
	case RT_STRIPE:
		i = (unsigned)(*pos / node->chunk % node->n_children);
		*pos = *pos / node->chunk / node->n_children * node->chunk + *pos % node->chunk;
		break;
	default:
		break;
	}
	return node->child[i];
}

struct rt_node *inl_rt_locate(struct rt_node *node, uint64_t pos, uint64_t *leaf_pos)
{
	if (pos >= node->size)
		abort();
	while (!is_leaf(node))
		node = step_down(node, &pos);
	*leaf_pos = pos;
	return node;
}

/* The device whose map parts two neighbouring sectors, on the way to an engine or a leaf; NULL: none. */
static struct rt_node *parted_by(struct rt_node *node, uint64_t pos)
{
	uint64_t next = pos + RT_SECTOR;

	while (!is_leaf(node) && node->kind != RT_ENGINE) {
		struct rt_node *child = step_down(node, &pos), *other = step_down(node, &next);

		if (child != other || next != pos + RT_SECTOR)
			return node;
		node = child;
	}
	return NULL;
}

struct rt_node *inl_rt_cutter(struct rt_node *node, uint64_t pos, uint64_t len, uint32_t unit)
{
	struct rt_node *found = NULL;

	for (uint64_t at = 0; at + RT_SECTOR < len && found != node; at += RT_SECTOR)
		if ((at + RT_SECTOR) % unit) {
			struct rt_node *by = parted_by(node, pos + at);

			found = by ? by : found;
		}
	return found;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static char complaint[RT_SPEC_LEN];

static const char *complain(const struct rt_node *node, const char *what, uint64_t is, uint64_t should)
{
	snprintf(complaint, sizeof(complaint), "node %u (%s): %s is %llu, not %llu", node->index, driver_names[node->kind],
		 what, (unsigned long long)is, (unsigned long long)should);
	return complaint;
}

/* Every question about capabilities that a key could ask. */
static const char *compare_caps(const struct rt_node *node)
{
	static const enum inl_blk_mode modes[] = { INL_BLK_MODE_AES_256_XTS, INL_BLK_MODE_AES_128_CBC_ESSIV };
	struct inl_key_config cfg = { .type = INL_KEY_RAW };
	struct inl_caps caps;

	inl_dev_caps(node->dev, &caps);
	for (unsigned m = 0; m < 2; m++)
		for (uint32_t unit = INL_UNIT_SIZE_MIN; unit <= INL_UNIT_SIZE_MAX; unit *= 2)
			for (uint32_t width = 4; width <= 16; width *= 2) {
				bool want;

				cfg.mode = modes[m];
				cfg.data_unit_size = unit;
				cfg.dun_bytes = width;
				want = inl_rt_native(node, &cfg);
				if (inl_dev_supports_natively(node->dev, &cfg) != want)
					return complain(node, "native support", !want, want);
				if (inl_caps_supports(&caps, &cfg) != want)
					return complain(node, "what the capabilities say", !want, want);
				want |= inl_rt_fallback(node);
				if (inl_dev_supports(node->dev, &cfg) != want)
					return complain(node, "support", !want, want);
			}
	return NULL;
}

static const char *bind(struct rt_node *node, struct inl_dev *dev)
{
	int slots = node->kind == RT_ENGINE ? node->slots : -1;
	const char *wrong = NULL;
	unsigned n = 0;

	if (!dev || strcmp(inl_dev_driver(dev), driver_names[node->kind]) != 0)
		return complain(node, "the driver's name, compared,", 1, 0);
	node->dev = dev;
	if (inl_dev_size(dev) != node->size)
		return complain(node, "the size", inl_dev_size(dev), node->size);
	if (inl_dev_block_size(dev) != node->block)
		return complain(node, "the block size", inl_dev_block_size(dev), node->block);
	if (inl_dev_n_slots(dev) != slots)
		return complain(node, "the number of slots", (uint64_t)inl_dev_n_slots(dev), (uint64_t)slots);
	if (inl_dev_fallback(dev) != inl_rt_fallback(node))
		return complain(node, "the fallback", inl_dev_fallback(dev), inl_rt_fallback(node));
	while (inl_dev_child(dev, n))
		n++;
	if (n != node->n_children)
		return complain(node, "the number of children", n, node->n_children);
	for (unsigned i = 0; i < n && !wrong; i++)
		wrong = bind(node->child[i], inl_dev_child(dev, i));
	return wrong ? wrong : compare_caps(node);
}

const char *inl_rt_tree_open(struct rt_tree *tree, unsigned flags)
{
	struct inl_diag diag = { 0 };
	struct inl_dev *dev;
	int err = inl_dev_open(tree->spec, flags, &diag, &dev);

	if (err) {
		snprintf(complaint, sizeof(complaint), "inl_dev_open returns %d: %s", err, diag.text);
		return complaint;
	}
	for (unsigned i = 0; i < tree->n_nodes; i++) {
		memset(tree->node[i].n_bytes, 0, sizeof(tree->node[i].n_bytes));
		tree->node[i].n_flushes = tree->node[i].n_errors = 0;
	}
	tree->root->dev = dev;
	return bind(tree->root, dev);
}

void inl_rt_tree_close(struct rt_tree *tree)
{
	inl_dev_close(tree->root->dev);
	for (unsigned i = 0; i < tree->n_nodes; i++)
		tree->node[i].dev = NULL;
}
