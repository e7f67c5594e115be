/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk may hold. The model follows what clients asked for and what they were told, never what the daemon does,
 * and knows of each sector of 512 bytes the list of its versions, oldest first:
 *
 *      sure      a change that was answered with success
 *      pending   a change that is under way
 *      maybe     a change that failed, or that need not be carried out (discard)
 *
 * Read now, a sector holds the last sure version or a maybe behind it. After a power cut it may hold any version of its
 * list. An answered flush takes versions away: those before the last sure one that was answered before the flush began.
 * An answered durable write does that for its own sectors.
 *
 * Contents are made from a stamp, which no two writes share, and from the sector's number, so that data from another
 * time and data from another place are both seen. Stamp 0 is zeroes.
 *
 * Clients of a real disk do not write one sector twice at a time, nor read what they are writing; no more do these: a
 * span is entered before its request is sent and left when the answer is there.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define SECTOR UINT64_C(512)

struct model;

/* A disk of `size` bytes that reads as zeroes, and may become as large as `max_size`. any_size_between: a cut in the
 * middle of a resize may leave every size between the old and the new one, because writes behind the old end are there
 * and the change of size is not (plain files). */
struct model *model_new(uint64_t size, uint64_t max_size, bool any_size_between);
void model_free(struct model *model);

uint64_t model_size(const struct model *model); /* bytes that exist for certain, whatever resize is under way */
uint64_t model_max_size(const struct model *model);

/* The bytes of `stamp` for a span. */
void model_fill(void *buffer, uint64_t offset, uint64_t length, uint32_t stamp);

/* Changes. begin: false when a sector of the span is in use or has no room for another version. */
enum model_outcome {
    MODEL_DONE,
    MODEL_DURABLE, /* answered, and promised to be on stable storage */
    MODEL_FAILED,  /* answered with an error: carried out in part, or not at all */
    MODEL_LOST,    /* never answered: may even be carried out later, so nobody uses the span any more */
    MODEL_MAYBE,   /* answered, but it was only a wish */
};
bool model_begin_change(struct model *model, uint64_t offset, uint64_t length, uint32_t stamp);
void model_end_change(struct model *model, uint64_t offset, uint64_t length, enum model_outcome outcome);

/* Reads keep changes away. end: the offset of the first sector that is wrong, UINT64_MAX for none; NULL: not looked at.
 */
bool model_begin_read(struct model *model, uint64_t offset, uint64_t length);
uint64_t model_end_read(struct model *model, uint64_t offset, uint64_t length, const void *data);

/* Flushes may overlap anything. */
uint64_t model_begin_flush(const struct model *model);
void model_end_flush(struct model *model, uint64_t flush);

/* The process that answered has ended without a flush that worked: what it said last need not be so. */
void model_break_promises(struct model *model);

/* Another size; what is lost and what is gained become zero. Waits for nothing: false while the end is in use. */
bool model_begin_resize(struct model *model, uint64_t size);
void model_end_resize(struct model *model, enum model_outcome outcome);

/* After a cut. The disk has `size` bytes: is that possible, and where is the first sector that holds none of its
 * versions (UINT64_MAX: none)? */
bool model_size_is_possible(const struct model *model, uint64_t size);
uint64_t model_examine(const struct model *model, const void *data, uint64_t offset, uint64_t length);
/* The same after a kill, where what was answered must be there: what is under way and maybes behind it may. */
uint64_t model_examine_answered(const struct model *model, const void *data, uint64_t offset, uint64_t length);
/* For messages: the versions of a sector, and what was found. To be freed. */
char *model_describe(const struct model *model, uint64_t offset, const void *found);

/* A life has ended, and this is what was left: now it is certain. */
void model_settle(struct model *model, const void *data, uint64_t size);
/* The processes have ended, and this is what the next ones see; but nobody has flushed it, so that a power cut may
 * still bring older versions back. false: there are too many of those; nothing is changed. */
bool model_observe(struct model *model, const void *data, uint64_t size);

#endif
