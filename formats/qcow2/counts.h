/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recount: how many references each host cluster really has, found by walking everything the header leads to. Memory
 * is proportional to what is in use, not to the size of the (perhaps sparse) file.
 */
#ifndef FORMATS_QCOW2_COUNTS_H
#define FORMATS_QCOW2_COUNTS_H

#include "formats/qcow2/state.h"

enum { COUNTS_CHUNK = 4096 };

struct counts {
    uint64_t clusters; /* of the file */
    uint32_t **chunks; /* of COUNTS_CHUNK counts; NULL: all 0 */
    uint64_t end;      /* behind the highest cluster in use */
};

bool counts_init(struct counts *counts, uint64_t clusters);
void counts_release(struct counts *counts);
uint64_t counts_get(const struct counts *counts, uint64_t index);
/* One more reference to each cluster of [first, last]. 0; -ERANGE: not inside the file; -ENOMEM. */
int counts_add(struct counts *counts, uint64_t first, uint64_t last);
/* The first cluster at or after `index` with a count, or UINT64_MAX. Skips empty chunks. */
uint64_t counts_next(const struct counts *counts, uint64_t index);

struct live_check; /* check_live.c */

struct check {
    struct qcow2 *q;
    const struct live_check *live; /* the image is in use meanwhile: what changes is no finding; or NULL */
    struct image_check *result;
    uint32_t repair; /* enum check_repair */
    struct counts counts;
    uint32_t reported; /* messages */
    bool must_rebuild; /* refcount blocks are missing or cannot be trusted */
};

/* check.c: what a result tells is there, and 0. */
void check_begin_result(const struct qcow2 *q, struct image_check *result);
/* Everything but the refcount structures themselves, those too if asked for. Counts corruptions of `check` if
 * it reports. 0 or -errno. */
int check_count(struct check *check, bool refcount_structures, bool report);
/* The parts of that, for a check that looks at one L2 table at a time. Everything but L2 tables; `buffer` is a cluster.
 */
int check_count_fixed(struct check *check);
/* An L1 entry, with its table. `snapshot`: -1 for the active L1 table, else the number of the snapshot. */
int check_count_table(struct check *check, uint64_t entry, uint32_t index, int64_t snapshot, uint8_t *buffer);
/* repair.c */
int check_compare(struct check *check);
int check_compare_block(struct check *check, uint64_t table_index);
int repair_rebuild(struct check *check);
int check_copied_flags(struct check *check);
/* The flags of one L1 entry and its table. */
int check_flags(struct check *check, uint32_t index);
/* check_live.c: has the cluster's count, or a reference to it, changed since the check began? */
bool live_touched(const struct live_check *live, uint64_t index);
/* Counts everything anew in refcounts of 1 << order bits; the image must be without errors. Under the lock. */
bool repair_change_width(struct qcow2 *q, uint32_t order, void (*progress)(void *user, uint64_t done, uint64_t total),
                         void *user, struct error *err);
/* A message for people about something wrong, on standard error. After a few hundred they are only counted. */
void check_report(struct check *check, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
