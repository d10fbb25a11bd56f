/*
 * drivers/drivers.h: what the files of this folder share: the table of drivers, a parsed SPEC, partition tables.
 * Not here: the contract between a driver and the block layer (inlay/driver.h).
 * Read more: doc/inlay.1, "DEVICES"; drivers/spec.c for the grammar.
 */
#ifndef INLAY_DRIVERS_DRIVERS_H
#define INLAY_DRIVERS_DRIVERS_H

#include <inlay/driver.h>

#define INL_SPEC_LEN_MAX   65536 /* bytes of text */
#define INL_SPEC_DEPTH_MAX 16	 /* devices on top of each other */
#define INL_PARAMS_MAX	   12	 /* parameters of one driver, the empty last one included */
#define INL_COMMON_MAX	   3	 /* options that every device takes, the empty last one included */
#define INL_REPEATS_MAX	   16	 /* arguments of one repeated parameter */

struct inl_spec;

/* ---- the table --------------------------------------------------------------------------------------------------- */

enum inl_param_kind {
	INL_PARAM_SPEC,	  /* a device: a path or a call */
	INL_PARAM_PATH,
	INL_PARAM_TEXT,
	INL_PARAM_NUMBER, /* decimal digits */
	INL_PARAM_SIZE,	  /* bytes: decimal digits and a binary suffix */
	INL_PARAM_SWITCH, /* on (1) or off (0) */
	INL_PARAM_FLAG,	  /* an option without a value */
};

struct inl_param {
	const char *name;
	enum inl_param_kind kind;
	bool option;  /* name=value in any order; otherwise by position, before the options */
	bool many;    /* by position, the last: may be repeated; its driver has no flags */
	bool may_lack; /* by position, the last, many: may be left out */
};

struct inl_driver {
	struct inl_driver_info info;
	struct inl_param params[INL_PARAMS_MAX]; /* ends at a NULL name */
	int (*open)(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
};

/* Options of every device, whatever its driver; ends at a NULL name. */
extern const struct inl_param inl_common_params[INL_COMMON_MAX];

/* The driver of this name (len bytes), or NULL. */
const struct inl_driver *inl_driver_find(const char *name, size_t len);

/* The driver that a bare path means. */
const struct inl_driver *inl_driver_default(void);

/* "file, ram, ..." into buf, cut off at size. Returns buf. */
char *inl_driver_names(char *buf, size_t size);

int inl_file_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_ram_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_slice_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_part_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_engine_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_linear_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_stripe_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_fault_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);

/* ---- a parsed SPEC ----------------------------------------------------------------------------------------------- */

struct inl_arg {
	bool given;
	unsigned column;       /* of the value, from 1 */
	char *text;	       /* PATH, TEXT, NUMBER, SIZE, SWITCH: as written, without quotes */
	uint64_t number;       /* NUMBER, SIZE, SWITCH */
	struct inl_spec *spec; /* SPEC */
	struct inl_arg *next;  /* of a repeated parameter: the next, or NULL */
};

/* One device: a driver and its arguments, each at the index of its parameter. */
struct inl_spec {
	const struct inl_driver *driver;
	unsigned column;
	struct inl_arg args[INL_PARAMS_MAX];
	struct inl_arg common[INL_COMMON_MAX];
};

/*
 * Parse a SPEC. A function of the bytes alone: nothing is opened.
 *
 *   text   len bytes; need not end in NUL
 *   out    every required argument is given, every number converted
 *
 * Returns: 0; -EINVAL ("SPEC, column N: ..."); -ENOMEM.
 */
int inl_spec_parse(const char *text, size_t len, struct inl_diag *diag, struct inl_spec **out);
void inl_spec_free(struct inl_spec *spec); /* NULL is fine */

/* The argument of this name if it was given, else NULL. Of a repeated parameter the first. */
const struct inl_arg *inl_spec_arg(const struct inl_spec *spec, const char *name);

/* Its number, or the default. */
uint64_t inl_spec_number(const struct inl_spec *spec, const char *name, uint64_t def);

/* Open the device that a SPEC, or a SPEC argument of one, names. */
int inl_spec_open(const struct inl_spec *spec, unsigned flags, struct inl_diag *diag, struct inl_dev **out);
int inl_spec_open_child(const struct inl_spec *spec, const char *name, unsigned flags, struct inl_diag *diag,
			struct inl_dev **out);

/*
 * Open the devices of a repeated SPEC argument, in their order.
 *
 *   out    room for INL_DEV_MAX_CHILDREN; the caller's to close
 *
 * Returns: 0; the first error: then none is open.
 */
int inl_spec_open_children(const struct inl_spec *spec, const char *name, unsigned flags, struct inl_diag *diag,
			   struct inl_dev **out, unsigned *n_out);
void inl_close_children(struct inl_dev *const *children, unsigned n);

/* inl_diag_set with "SPEC, column N: " before the text. */
int inl_spec_error(struct inl_diag *diag, int err, unsigned column, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* ---- slices of a device ------------------------------------------------------------------------------------------ */

/*
 * Make a device of len bytes of the child from offset on, for an ops structure whose map and close are the two
 * below. On failure the child remains the caller's.
 */
int inl_slice_new(const struct inl_dev_ops *ops, struct inl_dev *child, uint64_t offset, uint64_t len,
		  const char *label, struct inl_dev **out);
void inl_slice_map(struct inl_dev *dev, uint64_t pos, uint64_t len, struct inl_dev_extent *out);
void inl_slice_close(struct inl_dev *dev);

/* ---- stacks of several devices ----------------------------------------------------------------------------------- */

/*
 * Make a device of n children with an ops structure that has a map: the block size is the largest of theirs, it can be
 * written if all of them can.
 *
 *   priv      freed with free() by inl_stack_close
 *   unit_max  see struct inl_dev_params
 *
 * Returns: 0; -EINVAL; -ENOMEM. On failure priv and the children remain the caller's.
 */
int inl_stack_new(const struct inl_dev_ops *ops, void *priv, struct inl_dev *const *children, unsigned n, uint64_t size,
		  uint32_t unit_max, const char *label, struct inl_dev **out);
void inl_stack_close(struct inl_dev *dev);

/* The largest block size of n devices. */
uint32_t inl_stack_block_size(struct inl_dev *const *children, unsigned n);

/* ---- partition tables -------------------------------------------------------------------------------------------- */

/* Where a partition table is read from. */
struct inl_part_source {
	int (*read)(void *arg, uint64_t offset, void *buf, size_t len); /* any range within size; 0 or -errno */
	void *arg;
	uint64_t size;	     /* bytes */
	uint32_t block_size; /* bytes: the sectors of an MBR; a GPT says itself what its are */
};

struct inl_part {
	unsigned number;
	bool bad; /* not within the device, or nonsense: offset and len are 0 */
	uint64_t offset, len; /* bytes */
};

struct inl_part_table {
	const char *kind; /* "GPT", "MBR" */
	bool damaged;	  /* GPT: the backup is in use; MBR: the chain of logical partitions breaks off */
	unsigned n_parts;
	struct inl_part parts[]; /* by number */
};

/*
 * Read the partition table.
 *
 * Returns: 0; -ENODEV (there is none); -EUCLEAN (a GPT of which neither header is valid); -ENOMEM; errors of read.
 */
int inl_part_scan(const struct inl_part_source *source, struct inl_diag *diag, struct inl_part_table **out);
void inl_part_table_free(struct inl_part_table *table); /* NULL is fine */

/* Find partition number. Returns 0; -ENODEV (the text names those that exist); -EUCLEAN (a bad one). */
int inl_part_find(const struct inl_part_table *table, unsigned number, struct inl_diag *diag, struct inl_part *out);

#endif
