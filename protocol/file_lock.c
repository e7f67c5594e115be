/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on image files, such that programs of the whole ecosystem keep out of each other's way. Permissions of the
 * block graph become shared locks on single bytes of the file:
 *
 *     byte 100 + bit    somebody uses this permission
 *     byte 200 + bit    somebody does not allow others to use it
 *
 * Nobody ever takes an exclusive lock. After taking its own, a program asks whether an exclusive lock on the opposite
 * byte would be possible; if not, another program has the opposite interest, and the one who asked gives up. The locks
 * belong to the open file description, so they also work between two nodes of one process, and closing some other
 * descriptor of the file does not lose them.
 *
 * The locks of a process that was killed outlive it by a moment: the kernel ends its I/O, and with it the last use of
 * the file, behind its back. Whoever is started in its place must not fail of that, so a conflict is final only when it
 * has lasted for a second.
 */
#include "protocol/file.h"

#include "base/co.h"
#include "base/math.h"

#define HELD_BYTE 100
#define UNSHARED_BYTE 200

/* How long a conflict is waited out, and how often it is looked at. */
#define PAUSE_NS (20 * 1000 * 1000)
#define ATTEMPTS 50

static const struct {
    uint32_t bit;
    unsigned number;
    const char *name;
} permissions[] = {
    {BLOCK_PERM_CONSISTENT_READ, 0, "consistent read"},
    {BLOCK_PERM_WRITE, 1, "write"},
    {BLOCK_PERM_WRITE_UNCHANGED, 2, "write unchanged"},
    {BLOCK_PERM_RESIZE, 3, "resize"},
};

/* No locks on this file system: some network file systems and FUSE. */
static bool is_unsupported(int result)
{
    return result == -ENOLCK || result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL;
}

static bool refuse(const char *filename, int result, const char *shared, const char *name, struct error *err)
{
    if (result == -EAGAIN || result == -EACCES) {
        fail(err, EAGAIN, "Failed to get %s\"%s\" lock on '%s'", shared, name, filename);
        return fail_hint(err, "Is another process using the image [%s]?", filename);
    }
    return fail_errno(err, -result, "Failed to lock '%s'", filename);
}

static bool take_bytes(struct io_file *file, const char *filename, unsigned base, uint32_t bits, struct error *err,
                       int *result)
{
    *result = 0;
    for (size_t i = 0; i < ARRAY_SIZE(permissions); i++) {
        if (!(bits & permissions[i].bit))
            continue;
        *result = io_file_lock(file, base + permissions[i].number, 1, false);
        if (*result)
            return is_unsupported(*result) ? false : refuse(filename, *result, "", permissions[i].name, err);
    }
    return true;
}

/* Does somebody else hold one of these bytes? */
static bool probe_bytes(struct io_file *file, const char *filename, unsigned base, uint32_t bits, const char *shared,
                        struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(permissions); i++) {
        if (!(bits & permissions[i].bit))
            continue;
        int result = io_file_lock_test(file, base + permissions[i].number, 1, true);
        if (result)
            return refuse(filename, result, shared, permissions[i].name, err);
    }
    return true;
}

static bool probe_others(struct io_file *file, const char *filename, struct file_locks more, struct error *err)
{
    return probe_bytes(file, filename, UNSHARED_BYTE, more.held, "", err) &&
           probe_bytes(file, filename, HELD_BYTE, more.unshared, "shared ", err);
}

static void drop_bytes(struct io_file *file, unsigned base, uint32_t bits)
{
    for (size_t i = 0; i < ARRAY_SIZE(permissions); i++) {
        if (bits & permissions[i].bit)
            io_file_unlock(file, base + permissions[i].number, 1);
    }
}

void file_locks_drop(struct io_file *file, struct file_locks have, struct file_locks want)
{
    drop_bytes(file, HELD_BYTE, have.held & ~want.held);
    drop_bytes(file, UNSHARED_BYTE, have.unshared & ~want.unshared);
}

/* One attempt. `conflict` tells that somebody else holds what we want, so that waiting may help. */
static bool try_to_take(struct io_file *file, const char *filename, struct file_locks more, bool probe, bool optional,
                        bool *conflict, struct error *err)
{
    int result;
    bool ok = take_bytes(file, filename, HELD_BYTE, more.held, err, &result) &&
              take_bytes(file, filename, UNSHARED_BYTE, more.unshared, err, &result);
    if (!ok && is_unsupported(result))
        return optional || refuse(filename, result, "", "", err);
    if (ok && probe)
        ok = probe_others(file, filename, more, err);
    if (!ok)
        file_locks_drop(file, more, (struct file_locks){0});
    *conflict = !ok && err->code == EAGAIN;
    return ok;
}

bool file_locks_take(struct io_file *file, const char *filename, struct file_locks have, struct file_locks want,
                     bool probe, bool optional, struct error *err)
{
    struct file_locks more = {want.held & ~have.held, want.unshared & ~have.unshared};
    auto_error problem = {0};
    bool conflict = false;
    bool ok = try_to_take(file, filename, more, probe, optional, &conflict, &problem);
    for (int i = 0; conflict && i < ATTEMPTS && co_self() && !co_sleep_ns(PAUSE_NS); i++) {
        error_clear(&problem);
        conflict = !probe_others(file, filename, more, &problem) && problem.code == EAGAIN;
        if (conflict)
            continue; /* only looked: another program that tries now is not disturbed by our locks */
        error_clear(&problem);
        ok = try_to_take(file, filename, more, probe, optional, &conflict, &problem);
    }
    if (!ok)
        error_move(err, &problem);
    return ok;
}
