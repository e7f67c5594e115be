/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the file and host_device drivers share. Private to protocol/. */
#ifndef PROTOCOL_FILE_H
#define PROTOCOL_FILE_H

#include "base/io_file.h"
#include "block/driver.h"

struct blockdev_options;

/* Locks that we hold on a file, by permission bit: what we do, and what we let nobody else do. */
struct file_locks {
    uint32_t held, unshared;
};

struct file_state {
    struct io_file *file;
    bool is_device, is_writable; /* is_writable: how `file` is open, whatever the node says */
    bool had_writer; /* since it was opened, or went back to read-only (auto-read-only) */
    bool use_locks, locks_optional;
    struct file_locks locks;
    int sync_error; /* a failed sync is for ever: the kernel may have dropped what it could not write */
    bool cannot_zero_range, cannot_punch, cannot_zero_device, cannot_seek;
    uint64_t data_start, data_end; /* last extent that SEEK_DATA told to be data; data stays data until punched */
};

/* file_open.c */
bool file_open(struct node *node, struct error *err);
bool host_device_open(struct node *node, struct error *err);
void file_close(struct node *node);
bool file_reopen_prepare(struct node *node, const struct blockdev_options *options, struct reopen_state **state,
                         struct error *err);
void file_reopen_commit(struct node *node, struct reopen_state *state);
void file_reopen_abort(struct node *node, struct reopen_state *state);
bool file_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err);
void file_set_perm(struct node *node, uint32_t perm, uint32_t shared);

/* file_lock.c: takes the locks that `want` has beyond `have`; on failure none of them. */
bool file_locks_take(struct io_file *file, const char *filename, struct file_locks have, struct file_locks want,
                     bool probe, bool optional, struct error *err);
void file_locks_drop(struct io_file *file, struct file_locks have, struct file_locks want);

/* file_space.c */
int file_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags);
int file_discard(struct node *node, uint64_t offset, uint64_t length);
int file_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent);
int64_t file_copy_range(struct node *from, uint64_t from_offset, struct node *to, uint64_t to_offset, uint64_t length);
bool file_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact, struct error *err);
bool host_device_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                        struct error *err);
uint64_t host_device_current_size(struct node *node);
int64_t file_allocated_size(struct node *node);
/* Grows or shrinks an open file; the error names it. */
bool file_set_length(struct io_file *file, const char *filename, uint64_t old_size, uint64_t size,
                     enum preallocation preallocation, struct error *err);

/* file_zones.c */
extern const struct zone_ops file_zone_ops;

/* file_create.c */
extern const struct create_ops file_create_ops, host_device_create_ops;

#endif
