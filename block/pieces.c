/*
 * block/pieces.c: doing a bio piece by piece: splitting it over children, or taking it through bounce memory.
 * Not here: encrypting a piece (cross.c); where the map of a stack comes from (its driver).
 * Read more: ARCHITECTURE.md, "Submit never sleeps".
 *
 * The number of pieces and the memory are fixed. A bio that finds none and has none under way is parked; when something
 * becomes free the first one parked is woken and tries again, on its own thread, before anybody who comes later. One
 * piece is enough for a bio of any size to get on.
 */
#include "block/own.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define N_PIECES  64
#define PIECE_LEN (128u << 10) /* bytes: the most that one piece bounces; a multiple of every data unit */
#define GRANULE	  4096u
#define WORD_BITS 64u

struct inl_piece {
	struct inl_bio bio; /* first */
	struct inl_bio *owner;
	struct inl_pieces *pieces;
	struct inl_piece *next;
	struct iovec seg;   /* its bounce memory */
	unsigned granule, n_granules;
	uint64_t at;	    /* bytes: where in the owner's payload it begins */
	uint64_t len;
};

struct inl_pieces {
	struct inl_dev *dev;
	pthread_mutex_t lock; /* all below but memory and items */
	struct inl_piece *free;
	struct inl_bio_list parked;
	bool waking;	      /* one that was parked is on its way */
	atomic_bool wanted;   /* as it was when the lock was last let go: somebody is parked, or on its way */
	uint64_t *used;	      /* bit i: granule i is in use */
	unsigned n_granules;
	unsigned first_free_word; /* no free granule lies before it */
	uint8_t *memory;      /* NULL: pieces without memory */
	size_t memory_len;
	struct inl_piece items[N_PIECES];
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int map_memory(struct inl_pieces *pieces, size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	pieces->memory = memory;
	pieces->memory_len = len;
	pieces->n_granules = (unsigned)(len / GRANULE);
	pieces->used = calloc((pieces->n_granules + WORD_BITS - 1) / WORD_BITS, sizeof(uint64_t));
	return pieces->used ? 0 : -ENOMEM;
}

int inl_pieces_new(struct inl_dev *dev, size_t bounce_len, struct inl_pieces **out)
{
	struct inl_pieces *pieces = calloc(1, sizeof(*pieces));

	if (!pieces)
		return -ENOMEM;
	pthread_mutex_init(&pieces->lock, NULL);
	pieces->dev = dev;
	for (unsigned i = N_PIECES; i--;) {
		pieces->items[i].pieces = pieces;
		pieces->items[i].next = pieces->free;
		pieces->free = &pieces->items[i];
	}
	if (bounce_len && map_memory(pieces, bounce_len)) {
		inl_pieces_free(pieces);
		return -ENOMEM;
	}
	*out = pieces;
	return 0;
}

void inl_pieces_free(struct inl_pieces *pieces)
{
	if (!pieces)
		return;
	if (pieces->memory)
		munmap(pieces->memory, pieces->memory_len);
	free(pieces->used);
	pthread_mutex_destroy(&pieces->lock);
	free(pieces);
}

/* ---- granules, with the lock held --------------------------------------------------------------------------------- */

static bool is_used(const struct inl_pieces *pieces, unsigned i)
{
	return pieces->used[i / WORD_BITS] >> i % WORD_BITS & 1;
}

static void mark(struct inl_pieces *pieces, unsigned first, unsigned n, bool in_use)
{
	for (unsigned i = first; i < first + n; i++) {
		uint64_t bit = UINT64_C(1) << i % WORD_BITS;

		if (in_use)
			pieces->used[i / WORD_BITS] |= bit;
		else
			pieces->used[i / WORD_BITS] &= ~bit;
	}
	if (!in_use && first / WORD_BITS < pieces->first_free_word)
		pieces->first_free_word = first / WORD_BITS;
}

/* The first n free granules in a row from the beginning, so that little memory is ever touched; n_granules: none. */
static unsigned find_free(struct inl_pieces *pieces, unsigned n)
{
	unsigned first, i;

	while (pieces->first_free_word * WORD_BITS < pieces->n_granules &&
	       pieces->used[pieces->first_free_word] == UINT64_MAX)
		pieces->first_free_word++;
	first = i = pieces->first_free_word * WORD_BITS;
	while (i < pieces->n_granules && i - first < n) {
		if (i % WORD_BITS == 0 && pieces->used[i / WORD_BITS] == UINT64_MAX) {
			i += WORD_BITS;
			first = i;
		} else if (is_used(pieces, i++)) {
			first = i;
		}
	}
	return i - first >= n && first + n <= pieces->n_granules ? first : pieces->n_granules;
}

/*
 * Memory for up to len bytes, at least `least` of them, in multiples of least.
 *
 * Returns: how many bytes; 0: there is not enough.
 */
static uint64_t take_memory(struct inl_pieces *pieces, struct inl_piece *piece, uint64_t len, uint64_t least)
{
	if (len > PIECE_LEN)
		len = PIECE_LEN;
	for (;;) {
		unsigned n = (unsigned)((len + GRANULE - 1) / GRANULE), first = find_free(pieces, n);

		if (first < pieces->n_granules) {
			mark(pieces, first, n, true);
			piece->granule = first;
			piece->n_granules = n;
			piece->seg.iov_base = pieces->memory + (size_t)first * GRANULE;
			piece->seg.iov_len = len;
			return len;
		}
		if (len <= least)
			return 0;
		len = len / 2 / least * least;
		if (len < least)
			len = least;
	}
}

/* ---- taking and giving back --------------------------------------------------------------------------------------- */

static uint32_t smallest_piece(const struct inl_dev *dev, const struct inl_bio *owner)
{
	uint32_t block = dev->block_size, unit;

	if (owner->state.kind != INL_BIO_KEYED)
		return block;
	unit = inl_unit_size(owner->state.use);
	return unit > block ? unit : block;
}

/* Parked bios come first, in their order; who was woken and found nothing goes back to its place. */
static void park(struct inl_pieces *pieces, struct inl_bio *owner, bool woken)
{
	if (!woken) {
		INL_COUNT(pieces->dev, bounce_waits, 1);
		inl_bio_list_add(&pieces->parked, owner);
		return;
	}
	owner->state.next = pieces->parked.head;
	pieces->parked.head = owner;
	if (!pieces->parked.tail)
		pieces->parked.tail = owner;
}

static void unlock(struct inl_pieces *pieces)
{
	atomic_store_explicit(&pieces->wanted, pieces->waking || pieces->parked.head, memory_order_relaxed);
	pthread_mutex_unlock(&pieces->lock);
}

static struct inl_piece *take_spare(struct inl_pieces *pieces, const struct inl_bio *owner, uint64_t len)
{
	struct inl_thread *thread = owner->state.thread;
	struct inl_piece *piece = thread->spare;

	if (!piece)
		return NULL;
	if (pieces->memory && len > PIECE_LEN)
		len = PIECE_LEN;
	if (piece->pieces != pieces || owner->state.parked || (pieces->memory && len > piece->n_granules * GRANULE) ||
	    atomic_load_explicit(&pieces->wanted, memory_order_relaxed)) {
		inl_piece_return_spare(thread); /* what it holds may be what is missing */
		return NULL;
	}
	thread->spare = NULL;
	piece->seg.iov_len = len;
	piece->len = len;
	return piece;
}

/*
 * A piece for the owner, with memory for up to len bytes if these pieces have memory. If there is none, the owner is
 * parked, unless it has pieces under way whose end will bring it back.
 */
static struct inl_piece *take(struct inl_pieces *pieces, struct inl_bio *owner, uint64_t len)
{
	struct inl_piece *piece = take_spare(pieces, owner, len);
	bool woken = owner->state.parked;

	if (piece)
		return piece;
	owner->state.parked = false;
	pthread_mutex_lock(&pieces->lock);
	if (woken)
		pieces->waking = false;
	if (woken || (!pieces->waking && !pieces->parked.head))
		piece = pieces->free;
	if (piece && pieces->memory)
		len = take_memory(pieces, piece, len, smallest_piece(pieces->dev, owner));
	if (piece && len) {
		pieces->free = piece->next;
		piece->len = len;
	} else {
		piece = NULL;
		if (woken || !owner->state.n_pieces)
			park(pieces, owner, woken);
	}
	unlock(pieces);
	return piece;
}

/* The first one parked, if there is something for it to take. With the lock held; wake() it without. */
static struct inl_bio *next_to_wake(struct inl_pieces *pieces)
{
	if (pieces->waking || !pieces->free || !pieces->parked.head)
		return NULL;
	pieces->waking = true;
	return inl_bio_list_pop(&pieces->parked);
}

static void wake(struct inl_bio *bio)
{
	if (bio) {
		bio->state.parked = true;
		inl_todo(bio, INL_TODO_PIECES);
	}
}

static void wake_next(struct inl_pieces *pieces)
{
	struct inl_bio *bio;

	pthread_mutex_lock(&pieces->lock);
	bio = next_to_wake(pieces);
	unlock(pieces);
	wake(bio);
}

/* One that was woken does not need a piece any more. */
static void let_next_wake(struct inl_pieces *pieces, struct inl_bio *owner)
{
	struct inl_bio *bio;

	owner->state.parked = false;
	pthread_mutex_lock(&pieces->lock);
	pieces->waking = false;
	bio = next_to_wake(pieces);
	unlock(pieces);
	wake(bio);
}

static void free_piece(struct inl_piece *piece)
{
	struct inl_pieces *pieces = piece->pieces;
	struct inl_bio *bio;

	pthread_mutex_lock(&pieces->lock);
	if (pieces->memory)
		mark(pieces, piece->granule, piece->n_granules, false);
	piece->next = pieces->free;
	pieces->free = piece;
	bio = next_to_wake(pieces);
	unlock(pieces);
	wake(bio);
}

bool inl_piece_spare_wanted(const struct inl_thread *thread)
{
	return thread->spare && atomic_load_explicit(&thread->spare->pieces->wanted, memory_order_relaxed);
}

void inl_piece_return_spare(struct inl_thread *thread)
{
	struct inl_piece *piece = thread->spare;

	thread->spare = NULL;
	if (piece)
		free_piece(piece);
}

/* Keep it for the next bio of this turn, or let others have it. */
static void give_back(struct inl_piece *piece)
{
	struct inl_thread *thread = piece->owner->state.thread;

	if (thread->running && !thread->spare &&
	    !atomic_load_explicit(&piece->pieces->wanted, memory_order_relaxed))
		thread->spare = piece;
	else
		free_piece(piece);
}

/* ---- sending ------------------------------------------------------------------------------------------------------ */

/* What a flush is divided into: one for each child. */
static uint64_t total(const struct inl_pieces *pieces, const struct inl_bio *owner)
{
	return owner->op == INL_FLUSH ? pieces->dev->n_children : owner->len;
}

static void piece_done(struct inl_bio *bio)
{
	struct inl_piece *piece = (struct inl_piece *)bio;
	struct inl_bio *owner = piece->owner;

	if (bio->status && !owner->state.piece_error)
		owner->state.piece_error = bio->status;
	if (!bio->status && piece->pieces->memory && bio->op == INL_READ)
		inl_bio_copy_in(owner, piece->at, piece->seg.iov_base, piece->len);
	owner->state.n_pieces--;
	give_back(piece);
	if (!owner->state.going)
		inl_pieces_go(owner);
}

/* A driver that answers nonsense must not make us write elsewhere, or for ever. */
bool inl_dev_map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out)
{
	*out = (struct inl_dev_extent){ 0 };
	dev->ops->map(dev, pos, len, out);
	for (unsigned i = 0; i < dev->n_children; i++) {
		if (dev->children[i] == out->child)
			return out->len && out->len <= len;
	}
	return false;
}

static bool next_extent(struct inl_dev *dev, const struct inl_bio *owner, uint64_t at, struct inl_dev_extent *out)
{
	if (owner->op != INL_FLUSH)
		return inl_dev_map(dev, owner->state.pos + at, owner->len - at, out);
	*out = (struct inl_dev_extent){ dev->children[at], 0, 1 };
	return true;
}

static void send_split(struct inl_piece *piece, const struct inl_dev_extent *extent)
{
	struct inl_bio *bio = &piece->bio, *owner = piece->owner;
	bool flush = owner->op == INL_FLUSH;

	inl_bio_init_part(bio, owner, flush ? 0 : piece->at, flush ? 0 : piece->len);
	bio->done = piece_done;
	bio->state.dev = bio->state.top = extent->child;
	bio->state.pos = extent->pos;
	if (bio->state.kind == INL_BIO_KEYED) {
		bio->state.use = inl_child_use(owner->state.use, extent->child);
		if (!bio->state.use)
			bio->state.error = -EINVAL;
	}
	if (!bio->state.error)
		bio->state.error = inl_dev_check(extent->child, bio->op, extent->pos, bio->len);
	INL_COUNT(piece->pieces->dev, splits, 1);
	inl_todo_first(bio, INL_TODO_START);
}

/* Plain or sealed payload whose memory the device does not take: through memory that it does. */
static void send_copy(struct inl_piece *piece)
{
	struct inl_bio *bio = &piece->bio, *owner = piece->owner;

	if (owner->op == INL_WRITE)
		inl_bio_copy_out(owner, piece->at, piece->seg.iov_base, piece->len);
	inl_bio_init_part(bio, owner, piece->at, 0);
	bio->segs = &piece->seg;
	bio->n_segs = 1;
	bio->len = piece->len;
	bio->done = piece_done;
	bio->state.dev = bio->state.top = piece->pieces->dev;
	bio->state.pos = owner->state.pos + piece->at;
	inl_todo_first(bio, INL_TODO_START);
}

void inl_piece_crossed(struct inl_bio *bio, int status)
{
	struct inl_piece *piece = (struct inl_piece *)bio;
	struct inl_bio *owner = piece->owner;

	if (status) {
		bio->status = status;
		piece_done(bio);
		return;
	}
	inl_bio_init_sealed_write(bio, owner, piece->at, &piece->seg);
	bio->done = piece_done;
	inl_cross_seal(owner->state.cross, bio, owner->state.pos + piece->at);
}

static void send_crossing(struct inl_piece *piece)
{
	struct inl_bio *owner = piece->owner;

	piece->bio.state.thread = owner->state.thread;
	inl_cross_write(&piece->bio, owner, piece->at, piece->len, piece->seg.iov_base);
}

static void send(struct inl_piece *piece, const struct inl_dev_extent *extent)
{
	struct inl_bio *owner = piece->owner;

	if (!piece->pieces->memory)
		send_split(piece, extent);
	else if (owner->state.cross && owner->op == INL_WRITE)
		send_crossing(piece);
	else
		send_copy(piece);
}

/*
 * Send the next piece, or end the owner after the last. The piece goes before anything else that this thread has to do,
 * and right behind it the owner for its next one: on a device that is done at once, the same warm memory serves again.
 */
void inl_pieces_go(struct inl_bio *owner)
{
	struct inl_pieces *pieces = owner->state.pieces;
	uint64_t end = total(pieces, owner), at = owner->state.next_piece;
	bool woken = owner->state.parked;
	struct inl_dev_extent extent = { 0 };
	struct inl_piece *piece;

	if (at == end || owner->state.piece_error) {
		if (woken)
			let_next_wake(pieces, owner);
		if (!owner->state.n_pieces)
			inl_bio_end(owner, owner->state.piece_error);
		return;
	}
	if (!pieces->memory && !next_extent(pieces->dev, owner, at, &extent)) {
		owner->state.piece_error = -EIO;
		inl_pieces_go(owner);
		return;
	}
	piece = take(pieces, owner, pieces->memory ? end - at : extent.len);
	if (!piece)
		return;
	if (woken)
		wake_next(pieces);
	piece->owner = owner;
	piece->at = at;
	owner->state.n_pieces++;
	owner->state.next_piece += piece->len;
	if (owner->state.next_piece < end) {
		owner->state.going = true;
		inl_todo_first(owner, INL_TODO_PIECES);
	}
	send(piece, &extent);
}

/* Through one child as it is, if that is all there is to it. */
static bool goes_whole(struct inl_dev *dev, struct inl_bio *owner)
{
	struct inl_dev_extent extent;

	if (owner->op == INL_FLUSH) {
		if (dev->n_children != 1)
			return false;
		extent = (struct inl_dev_extent){ dev->children[0], 0, 0 };
	} else if (!inl_dev_map(dev, owner->state.pos, owner->len, &extent) || extent.len != owner->len) {
		return false;
	}
	inl_submit_below(extent.child, owner, extent.pos);
	return true;
}

void inl_pieces_start(struct inl_pieces *pieces, struct inl_bio *owner)
{
	if (!pieces->memory && goes_whole(pieces->dev, owner))
		return;
	owner->state.pieces = pieces;
	owner->state.next_piece = 0;
	owner->state.n_pieces = 0;
	owner->state.piece_error = 0;
	owner->state.parked = owner->state.going = false;
	inl_pieces_go(owner);
}
