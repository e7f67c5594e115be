/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated disks: files, and what separates what programs see from what a power cut leaves. Private to base:
 * sim_disk.c keeps files and cuts the power, sim_file.c serves them as io_files.
 */
#ifndef BASE_SIM_DISK_H
#define BASE_SIM_DISK_H

#include "base/sim_image.h"
#include "base/sim_private.h"

struct io_file;

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_PUNCH, CHANGE_ALLOCATE, CHANGE_SIZE };

struct change {
    struct list link;
    enum change_kind kind;
    uint64_t offset, length; /* CHANGE_SIZE: the new size is `offset` */
    bool complete;           /* the program was told so: a sync that begins later covers it */
    uint64_t covered_by;     /* the first sync that began after completion; 0: none yet */
    bool durable;            /* survives any power cut, though it is not yet in the durable image */
    unsigned char data[];    /* CHANGE_WRITE */
};

struct sim_lock {
    const struct io_file *owner;
    uint64_t start, end;
    bool exclusive;
};

struct sim_file {
    struct list link;
    char *path;
    struct image seen, durable;
    struct list changes; /* of struct change, in the order in which they were applied to `seen` */
    vec(struct sim_lock) locks;
    uint64_t inode, syncs;
    unsigned open_count;
    bool removed;
    bool named; /* its directory entry survives a power cut */
};

struct sim_failure {
    char *path; /* NULL: any */
    unsigned operations;
    uint64_t number, count;
    int error;
};

struct sim_disk {
    struct sim *sim;
    struct list files; /* of struct sim_file */
    uint64_t last_inode, operations;
    uint64_t power_cycle; /* crashes so far; handles of an earlier cycle are dead */
    vec(struct sim_failure) failures;
    uint64_t hook_at; /* 0: none */
    void (*hook)(void *arg);
    void *hook_arg;
};

struct sim_file *sim_disk_find(struct sim_disk *disk, const char *path);
struct sim_file *sim_disk_create(struct sim_disk *disk, const char *path);
void sim_file_release(struct sim_file *file); /* one opening less */
uint64_t sim_disk_allocated(struct sim_disk *disk);

/* Makes a change seen and appends it to the list. CHANGE_WRITE copies `data`. */
struct change *sim_change(struct sim_file *file, enum change_kind kind, uint64_t offset, uint64_t length,
                          const void *data);
/* A sync covers what was complete when it began: mark, and later, when it succeeded, make the marked ones durable. The
 * mark lives in the changes, so syncs may overlap (each counts up its own number). */
uint64_t sim_sync_begin(struct sim_file *file);
void sim_sync_end(struct sim_file *file, uint64_t sync);
/* ... or, when it failed and the cache forgets what it could not write: a random part of them arrives. */
void sim_sync_lose(struct sim_file *file, uint64_t sync, struct rng *lot);

/* An operation begins: counts it, calls the hook, and says whether it is to fail (0 or -errno). */
int sim_disk_begin(struct sim_disk *disk, struct sim_file *file, unsigned operation);

#endif
