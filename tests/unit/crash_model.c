/*
 * tests/unit/crash_model.c: what the workload has made of a directory, in memory, at any time since it began.
 * Not here: the workload (crash_ops.c); comparing it with a volume (crash_walk.c).
 * Read more: crash.h.
 */
#include "crash.h"
#include "base/endian.h"
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROW(array, n, room)                                                                                           \
	do {                                                                                                           \
		if ((n) == (room)) {                                                                                   \
			(room) = (room) ? 2 * (room) : 16;                                                             \
			(array) = realloc((array), (room) * sizeof((array)[0]));                                       \
		}                                                                                                      \
	} while (0)

/* ---- contents ---------------------------------------------------------------------------------------------------- */

#define CELL	   16u
#define CELL_MAGIC 0x494e0000u

static uint32_t cell_sum(uint32_t id, uint32_t gen, uint32_t cell)
{
	uint32_t x = (id * 0x9e3779b1u ^ gen) * 0x85ebca6bu ^ cell * 0xc2b2ae35u;

	return x ^ x >> 15;
}

/* In an encrypted file every fourth cell has the mark. */
static bool is_marked(uint32_t id, uint32_t cell)
{
	return (id & CR_SECRET) && !(id & CR_ID_OTHER) && cell % 4 == 3;
}

static void make_cell(uint32_t id, uint32_t gen, uint32_t cell, uint8_t out[CELL])
{
	if (is_marked(id, cell)) {
		memcpy(out, cr_mark, CR_MARK);
		inl_store_le32(out + 8, cell_sum(id, gen, cell));
		inl_store_le32(out + 12, cell);
		return;
	}
	inl_store_le32(out, CELL_MAGIC | id);
	inl_store_le32(out + 4, gen);
	inl_store_le32(out + 8, cell);
	inl_store_le32(out + 12, cell_sum(id, gen, cell));
}

void cr_pattern(uint32_t id, uint32_t gen, uint64_t at, uint8_t *out, size_t len)
{
	uint8_t cell[CELL];

	if (!gen) {
		memset(out, 0, len);
		return;
	}
	while (len) {
		size_t skip = at % CELL, n = CR_MIN(len, CELL - skip);

		make_cell(id, gen, (uint32_t)(at / CELL), cell);
		memcpy(out, cell + skip, n);
		out += n;
		at += n;
		len -= n;
	}
}

bool cr_pattern_find(const uint8_t *sector, uint32_t *id, uint32_t *gen, uint64_t *at)
{
	for (unsigned i = 0; i < CR_SECTOR; i += CELL) {
		uint32_t first = inl_load_le32(sector + i), cell = inl_load_le32(sector + i + 8);

		*id = first & 0xffff;
		*gen = inl_load_le32(sector + i + 4);
		*at = (uint64_t)cell * CELL - i;
		if ((first & 0xffff0000u) == CELL_MAGIC && inl_load_le32(sector + i + 12) == cell_sum(*id, *gen, cell))
			return true;
	}
	return false;
}

void cr_xattr_name(unsigned i, char name[32])
{
	snprintf(name, 32, i ? "user.%.*s%u" : "trusted.%.*s%u", (int)(i * 6), "abcdefghijklmnopqr", i);
}

void cr_xattr_value(uint32_t id, uint32_t gen, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)((id * 31 + gen * 7 + i) * 167 >> 3);
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

uint32_t cr_segs_gen(const struct cr_state *state, uint64_t at)
{
	uint32_t i = state->n_segs;

	while (i && state->segs[i - 1].at > at)
		i--;
	return i ? state->segs[i - 1].gen : 0;
}

void cr_segs_set(struct cr_state *state, uint64_t from, uint64_t to, uint32_t gen)
{
	struct cr_seg *segs = calloc(state->n_segs + 3, sizeof(segs[0]));
	uint32_t n = 0, i = 0, after = cr_segs_gen(state, to);

	if (from >= to) {
		free(segs);
		return;
	}
	for (; i < state->n_segs && state->segs[i].at < from; i++)
		segs[n++] = state->segs[i];
	segs[n++] = (struct cr_seg){ from, gen };
	while (i < state->n_segs && state->segs[i].at <= to)
		i++;
	if (to != UINT64_MAX)
		segs[n++] = (struct cr_seg){ to, after };
	for (; i < state->n_segs; i++)
		segs[n++] = state->segs[i];
	free(state->segs);
	state->segs = segs;
	state->n_segs = 1;
	for (i = 1; i < n; i++) {
		if (segs[i].gen != segs[state->n_segs - 1].gen)
			segs[state->n_segs++] = segs[i];
	}
}

/* ---- nodes, names, operations ------------------------------------------------------------------------------------ */

void cr_model_init(struct cr_model *model, const char *root, uint32_t id_base)
{
	memset(model, 0, sizeof(*model));
	snprintf(model->root, sizeof(model->root), "%s", root);
	model->id_base = id_base;
	cr_op_begin(model, 0, "setup");
	model->n_ops = 0; /* state 0 */
	cr_node_add(model, DT_DIR, 0755);
}

static void node_done(struct cr_node *node)
{
	for (uint32_t i = 0; i < node->n_states; i++)
		free(node->states[i].segs);
	free(node->states);
	free(node->target);
}

void cr_model_done(struct cr_model *model)
{
	for (uint32_t i = 0; i < model->n_nodes; i++)
		node_done(&model->nodes[i]);
	free(model->nodes);
	free(model->entries);
	free(model->ops);
	free(model->acks);
}

/* ops[n] is operation n; ops[0] is how it began. */
uint32_t cr_op_begin(struct cr_model *model, uint64_t moment, const char *fmt, ...)
{
	struct cr_op *op;
	va_list args;

	if (model->n_ops + 1 >= model->ops_room) {
		model->ops_room = 2 * model->ops_room + 16;
		model->ops = realloc(model->ops, model->ops_room * sizeof(model->ops[0]));
	}
	op = &model->ops[++model->n_ops];
	memset(op, 0, sizeof(*op));
	op->start = moment;
	op->partial = CR_NONE;
	va_start(args, fmt);
	vsnprintf(op->what, sizeof(op->what), fmt, args);
	va_end(args);
	return model->n_ops;
}

void cr_ack(struct cr_model *model, uint64_t moment)
{
	GROW(model->acks, model->n_acks, model->acks_room);
	model->acks[model->n_acks++] = (struct cr_ack){ model->n_ops, moment };
}

uint32_t cr_node_add(struct cr_model *model, uint8_t type, uint32_t mode)
{
	uint32_t number = model->n_nodes;
	struct cr_node *node;
	struct cr_state *state;

	GROW(model->nodes, model->n_nodes, model->nodes_room);
	node = &model->nodes[model->n_nodes++];
	memset(node, 0, sizeof(*node));
	node->id = model->id_base + number;
	node->type = type;
	node->first = CR_NONE;
	node->room = 2;
	node->states = calloc(node->room, sizeof(node->states[0]));
	state = &node->states[node->n_states++];
	state->op = model->n_ops;
	state->mode = mode;
	state->nlink = type == DT_DIR ? 2 : 1;
	cr_segs_set(state, 0, UINT64_MAX, 0);
	return number;
}

struct cr_state *cr_node_change(struct cr_model *model, uint32_t number)
{
	struct cr_node *node = &model->nodes[number];
	struct cr_state *last = &node->states[node->n_states - 1], *state;

	if (last->op == model->n_ops)
		return last;
	GROW(node->states, node->n_states, node->room);
	last = &node->states[node->n_states - 1];
	state = &node->states[node->n_states++];
	*state = *last;
	state->op = model->n_ops;
	state->segs = calloc(last->n_segs, sizeof(state->segs[0]));
	memcpy(state->segs, last->segs, last->n_segs * sizeof(state->segs[0]));
	return state;
}

const struct cr_state *cr_node_now(const struct cr_model *model, uint32_t node)
{
	return &model->nodes[node].states[model->nodes[node].n_states - 1];
}

const struct cr_state *cr_node_at(const struct cr_node *node, uint32_t op)
{
	uint32_t i = node->n_states;

	while (i > 1 && node->states[i - 1].op > op)
		i--;
	return &node->states[i - 1];
}

void cr_entry_add(struct cr_model *model, uint32_t dir, const char *name, size_t len, uint32_t node)
{
	struct cr_entry *entry;

	GROW(model->entries, model->n_entries, model->entries_room);
	entry = &model->entries[model->n_entries];
	memset(entry, 0, sizeof(*entry));
	entry->dir = dir;
	entry->node = node;
	entry->from = model->n_ops;
	entry->to = CR_NONE;
	entry->len = (uint8_t)len;
	memcpy(entry->name, name, len);
	entry->next = model->nodes[dir].first;
	model->nodes[dir].first = model->n_entries++;
}

void cr_entry_remove(struct cr_model *model, uint32_t entry)
{
	model->entries[entry].to = model->n_ops;
}

uint32_t cr_entry_find(const struct cr_model *model, uint32_t dir, const char *name, size_t len)
{
	uint32_t i = model->nodes[dir].first;

	while (i != CR_NONE && (model->entries[i].to != CR_NONE || model->entries[i].len != len ||
				memcmp(model->entries[i].name, name, len)))
		i = model->entries[i].next;
	return i;
}
