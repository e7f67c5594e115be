/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated disks. A file is two images and a list:
 *
 *      seen      what programs read: every change at once           (the page cache)
 *      durable   what a power cut leaves for certain                (the platter)
 *      changes   what separates the two, in the order it was seen
 *
 * A sync that succeeds takes the changes that were complete when it began off the list and applies them to `durable`. A
 * crash applies a random part of the list instead, a 512-byte piece at a time, and makes the result both images: later
 * writes may survive where earlier ones do not, and a write may be torn. A durable write (RWF_DSYNC) is a change that
 * the lot does not touch.
 *
 * The name of a new file is durable with the first sync of the file, as journaling file systems have it; until then a
 * power cut may take the file away.
 *
 * Not modelled: renaming, directories as such, decay of what was durable, and bad media other than by sim_fail().
 */
#include "base/sim_disk.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/endian.h"
#include "base/loop_private.h"

#define SECTOR 512u

/* --- files --- */

struct sim_disk *sim_disk_new(struct sim *sim)
{
    struct sim_disk *disk = new (struct sim_disk);
    disk->sim = sim;
    list_init(&disk->files);
    return disk;
}

static void change_free(struct change *change)
{
    list_remove(&change->link);
    free(change);
}

static void drop_changes(struct sim_file *file)
{
    struct change *change;
    while ((change = list_first(&file->changes, struct change, link)))
        change_free(change);
}

/* The bytes of a removed file stay until the last opening is closed. */
static void free_if_unused(struct sim_file *file)
{
    if (file->open_count || !file->removed)
        return;
    drop_changes(file);
    image_free(&file->seen);
    image_free(&file->durable);
    vec_free(&file->locks);
    free(file->path);
    free(file);
}

static void file_remove(struct sim_file *file)
{
    list_remove(&file->link);
    file->removed = true;
    free_if_unused(file);
}

void sim_file_release(struct sim_file *file)
{
    file->open_count--;
    free_if_unused(file);
}

static void clear_failures(struct sim_disk *disk)
{
    for (size_t i = 0; i < disk->failures.count; i++)
        free(disk->failures.items[i].path);
    vec_clear(&disk->failures);
}

void sim_disk_free(struct sim_disk *disk)
{
    struct sim_file *file;
    while ((file = list_first(&disk->files, struct sim_file, link)))
        file_remove(file);
    clear_failures(disk);
    vec_free(&disk->failures);
    free(disk);
}

struct sim_file *sim_disk_find(struct sim_disk *disk, const char *path)
{
    struct sim_file *file;
    list_for_each (file, &disk->files, link)
        if (!strcmp(file->path, path))
            return file;
    return NULL;
}

struct sim_file *sim_disk_create(struct sim_disk *disk, const char *path)
{
    struct sim_file *file = new (struct sim_file);
    file->path = xstrdup(path);
    file->inode = ++disk->last_inode;
    list_init(&file->changes);
    list_append(&disk->files, &file->link);
    return file;
}

uint64_t sim_disk_allocated(struct sim_disk *disk)
{
    uint64_t total = 0;
    struct sim_file *file;
    list_for_each (file, &disk->files, link)
        total += image_allocated(&file->seen);
    return total;
}

/* --- changes --- */

static void apply(struct image *image, const struct change *change, uint64_t from, uint64_t length)
{
    switch (change->kind) {
    case CHANGE_WRITE: image_write(image, change->offset + from, change->data + from, length); break;
    case CHANGE_ZERO: image_zero(image, change->offset + from, length); break;
    case CHANGE_PUNCH: image_punch(image, change->offset + from, length); break;
    case CHANGE_ALLOCATE: image_allocate(image, change->offset + from, length); break;
    case CHANGE_SIZE: image_resize(image, change->offset); break;
    }
}

struct change *sim_change(struct sim_file *file, enum change_kind kind, uint64_t offset, uint64_t length,
                          const void *data)
{
    size_t bytes = kind == CHANGE_WRITE ? length : 0;
    struct change *change = xmalloc(sizeof *change + bytes);
    *change = (struct change){.kind = kind, .offset = offset, .length = length};
    if (bytes)
        memcpy(change->data, data, bytes);
    list_append(&file->changes, &change->link);
    apply(&file->seen, change, 0, length);
    return change;
}

uint64_t sim_sync_begin(struct sim_file *file)
{
    uint64_t sync = ++file->syncs;
    struct change *change;
    list_for_each (change, &file->changes, link)
        if (change->complete && !change->covered_by)
            change->covered_by = sync;
    return sync;
}

void sim_sync_end(struct sim_file *file, uint64_t sync)
{
    struct change *change;
    list_for_each_safe (change, &file->changes, link) {
        if (!change->covered_by || change->covered_by > sync)
            continue;
        apply(&file->durable, change, 0, change->length);
        change_free(change);
    }
    file->named = true;
}

/* --- power cuts --- */

/* The end of the piece that begins at `from`: the next sector boundary. Sizes and allocations go as a whole. */
static uint64_t piece_end(const struct change *change, uint64_t from)
{
    if (change->kind != CHANGE_WRITE && change->kind != CHANGE_ZERO)
        return change->length;
    uint64_t boundary = round_down(change->offset + from, SECTOR) + SECTOR - change->offset;
    return MIN(boundary, change->length);
}

static void apply_lot(struct image *image, const struct change *change, struct rng *lot)
{
    if (change->kind == CHANGE_SIZE) {
        if (change->durable || rng_coin(lot))
            apply(image, change, 0, 0);
        return;
    }
    for (uint64_t from = 0, end; from < change->length; from = end) {
        end = piece_end(change, from);
        if (change->durable || rng_coin(lot))
            apply(image, change, from, end - from);
    }
}

void sim_sync_lose(struct sim_file *file, uint64_t sync, struct rng *lot)
{
    struct change *change;
    list_for_each_safe (change, &file->changes, link) {
        if (!change->covered_by || change->covered_by > sync)
            continue;
        apply_lot(&file->durable, change, lot);
        change_free(change);
    }
}

/* false: the file is not there any more. */
static bool survive(const struct sim_file *file, struct image *image, struct rng *lot)
{
    if (!file->named && rng_coin(lot))
        return false;
    struct change *change;
    list_for_each (change, &file->changes, link)
        apply_lot(image, change, lot);
    return true;
}

static void file_crash(struct sim_file *file, struct rng *lot)
{
    vec_clear(&file->locks);
    if (!survive(file, &file->durable, lot)) {
        file_remove(file);
        return;
    }
    file->named = true;
    drop_changes(file);
    image_copy(&file->seen, &file->durable);
}

void sim_crash(struct loop *loop, uint64_t seed)
{
    struct sim_disk *disk = loop->sim->disk;
    struct rng lot;
    rng_seed(&lot, seed);
    disk->power_cycle++;
    store_le64(loop->boot_id, load_le64(loop->boot_id) + 1);
    struct sim_file *file;
    list_for_each_safe (file, &disk->files, link)
        file_crash(file, &lot);
}

/* What was written lies in the page cache, told or not: the next sync of anybody covers it. */
static void file_orphan(struct sim_file *file)
{
    vec_clear(&file->locks);
    struct change *change;
    list_for_each (change, &file->changes, link)
        change->complete = true;
}

void sim_kill(struct loop *loop)
{
    struct sim_disk *disk = loop->sim->disk;
    disk->power_cycle++;
    struct sim_file *file;
    list_for_each (file, &disk->files, link)
        file_orphan(file);
}

void sim_sync(struct loop *loop)
{
    struct sim_file *file;
    list_for_each (file, &loop->sim->disk->files, link) {
        drop_changes(file);
        image_copy(&file->durable, &file->seen);
        file->named = true;
    }
}

void sim_cut_copy(struct loop *to, struct loop *from, enum sim_cut kind, uint64_t seed)
{
    struct sim_disk *disk = to->sim->disk;
    struct rng lot;
    rng_seed(&lot, seed);
    store_le64(to->boot_id, load_le64(from->boot_id) + (kind == SIM_POWER_CUT));
    struct sim_file *file;
    while ((file = list_first(&disk->files, struct sim_file, link)))
        file_remove(file);
    list_for_each (file, &from->sim->disk->files, link) {
        struct image image = {0};
        image_copy(&image, kind == SIM_KILL ? &file->seen : &file->durable);
        if (kind == SIM_POWER_CUT && !survive(file, &image, &lot)) {
            image_free(&image);
            continue;
        }
        struct sim_file *copy = sim_disk_create(disk, file->path);
        copy->named = true;
        copy->durable = image;
        image_copy(&copy->seen, &copy->durable);
    }
}

/* --- operations: counted, hooked, failed --- */

static int failure_of(struct sim_disk *disk, const char *path, unsigned operation)
{
    int error = 0;
    for (size_t i = 0; i < disk->failures.count; i++) {
        struct sim_failure *failure = &disk->failures.items[i];
        if (!(failure->operations & operation) || (failure->path && strcmp(failure->path, path)))
            continue;
        if (failure->number > 1) {
            failure->number--;
        } else if (failure->count) {
            failure->count--;
            error = error ? error : -failure->error;
        }
    }
    return error;
}

int sim_disk_begin(struct sim_disk *disk, struct sim_file *file, unsigned operation)
{
    disk->operations++;
    if (disk->hook_at && disk->operations == disk->hook_at) {
        disk->hook_at = 0;
        disk->hook(disk->hook_arg);
    }
    return failure_of(disk, file->path, operation);
}

uint64_t sim_operations(struct loop *loop)
{
    return loop->sim->disk->operations;
}

void sim_at_operation(struct loop *loop, uint64_t number, void (*fn)(void *arg), void *arg)
{
    struct sim_disk *disk = loop->sim->disk;
    disk->hook_at = disk->operations + number;
    disk->hook = fn;
    disk->hook_arg = arg;
}

void sim_fail(struct loop *loop, const char *path, unsigned operations, uint64_t number, uint64_t count, int error)
{
    struct sim_failure failure = {xstrdup(path), operations, number, count, error};
    vec_push(&loop->sim->disk->failures, failure);
}

void sim_fail_clear(struct loop *loop)
{
    clear_failures(loop->sim->disk);
}

/* --- files from the outside --- */

void sim_file_put(struct loop *loop, const char *path, const void *data, size_t size)
{
    struct sim_disk *disk = loop->sim->disk;
    sim_file_remove(loop, path);
    struct sim_file *file = sim_disk_create(disk, path);
    file->named = true;
    image_write(&file->durable, 0, data, size);
    image_copy(&file->seen, &file->durable);
}

void *sim_file_get(struct loop *loop, const char *path, size_t *size)
{
    struct sim_file *file = sim_disk_find(loop->sim->disk, path);
    if (!file)
        return NULL;
    *size = file->seen.size;
    void *data = xmalloc(*size);
    image_read(&file->seen, 0, data, *size);
    return data;
}

bool sim_file_exists(struct loop *loop, const char *path)
{
    return sim_disk_find(loop->sim->disk, path) != NULL;
}

bool sim_file_remove(struct loop *loop, const char *path)
{
    struct sim_file *file = sim_disk_find(loop->sim->disk, path);
    if (file)
        file_remove(file);
    return file != NULL;
}

uint64_t sim_file_unflushed(struct loop *loop, const char *path)
{
    uint64_t bytes = 0;
    struct sim_file *file = sim_disk_find(loop->sim->disk, path);
    if (!file)
        return 0;
    struct change *change;
    list_for_each (change, &file->changes, link)
        bytes += change->durable ? 0 : change->length;
    return bytes;
}
