/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front end's memory: the table of regions, their mappings, and the dirty log of a migration.
 *
 * A front end that shrinks a file which we have mapped would make our next access raise SIGBUS. While a mapping exists
 * it stands in a process-wide table; the handler below puts anonymous memory in the place of such a mapping and the
 * access goes on (the guest has only hurt itself). The table and the handler are the one piece of global state here,
 * because a signal handler is one by nature.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "vhost-user/internal.h"

/* Surviving truncation ------------------------------------------------------------------------------------------- */

#define FUSE_MAGIC 0x65735546u /* linux/magic.h of newer headers */

enum { GUARDED_MAX = 1024 };
static struct {
    _Atomic size_t length;   /* 0: free; claims the slot */
    _Atomic(uint8_t *) base; /* NULL until the slot is complete */
} guarded[GUARDED_MAX];

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    (void)context;
    uint8_t *address = info->si_addr;
    for (int i = 0; i < GUARDED_MAX; i++) {
        uint8_t *base = atomic_load(&guarded[i].base);
        size_t length = atomic_load(&guarded[i].length);
        if (base && address >= base && address < base + length) {
            mmap(base, length, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            return;
        }
    }
    signal(number, SIG_DFL); /* not ours: the access is repeated and ends the process as it should */
}

static bool guard(uint8_t *base, size_t length)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    for (int i = 0; i < GUARDED_MAX; i++) {
        size_t free_slot = 0;
        if (atomic_compare_exchange_strong(&guarded[i].length, &free_slot, length)) {
            atomic_store(&guarded[i].base, base);
            return true;
        }
    }
    return false;
}

static void unguard(const uint8_t *base)
{
    for (int i = 0; i < GUARDED_MAX; i++) {
        if (atomic_load(&guarded[i].base) == base) {
            atomic_store(&guarded[i].base, NULL);
            atomic_store(&guarded[i].length, 0);
            return;
        }
    }
}

/* Mappings ------------------------------------------------------------------------------------------------------- */

bool mapping_open(struct mapping *mapping, int fd, uint64_t offset, uint64_t size, struct error *err)
{
    uint64_t end;
    struct stat st;
    if (fd < 0)
        return fail(err, EINVAL, "no file descriptor came with the memory");
    if (!size || add_overflows(offset, size, &end))
        return fail(err, EINVAL, "memory of %" PRIu64 " bytes at offset %" PRIu64 " of its file makes no sense", size,
                    offset);
    if (fstat(fd, &st) < 0 || end > (uint64_t)st.st_size)
        return fail(err, EINVAL,
                    "memory of %" PRIu64 " bytes at offset %" PRIu64 " does not lie inside its file of %" PRIu64
                    " bytes",
                    size, offset, (uint64_t)st.st_size);
    /* A front end could answer, or not answer, every access to such a file itself. */
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0 || (uint32_t)fs.f_type == FUSE_MAGIC)
        return fail(err, EINVAL, "memory in a file of a FUSE file system is not taken: memfd, tmpfs or hugetlbfs are");
    uint64_t from = round_down(offset, (uint64_t)sysconf(_SC_PAGESIZE));
    size_t length = (size_t)(end - from);
    uint8_t *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)from);
    if (base == MAP_FAILED)
        return fail_errno(err, errno, "cannot map %zu bytes of the front end's memory", length);
    if (!guard(base, length)) {
        munmap(base, length);
        return fail(err, ENOSPC, "too much memory is mapped: at most %d regions in one process", GUARDED_MAX);
    }
    madvise(base, length, MADV_DONTDUMP);
    *mapping = (struct mapping){base, length, base + (offset - from), (size_t)size};
    return true;
}

void mapping_close(struct mapping *mapping)
{
    if (mapping->base) {
        unguard(mapping->base);
        munmap(mapping->base, mapping->length);
    }
    *mapping = (struct mapping){0};
}

/* Regions -------------------------------------------------------------------------------------------------------- */

bool memory_add(struct device *device, const struct vhost_user_region *region, int fd, struct error *err)
{
    size_t slot = 0;
    while (slot < GUEST_REGIONS_MAX && device->region_mappings[slot].base)
        slot++;
    if (slot == GUEST_REGIONS_MAX)
        return fail(err, ENOSPC, "memory table is full: at most %d regions", GUEST_REGIONS_MAX);
    struct mapping mapping;
    if (!mapping_open(&mapping, fd, region->mmap_offset, region->size, err))
        return false;
    struct guest_region entry = {.guest_base = region->guest_address,
                                 .size = region->size,
                                 .user_base = region->user_address,
                                 .host = mapping.start};
    if (!guest_regions_add(&device->regions, &entry, err)) {
        mapping_close(&mapping);
        return false;
    }
    device->region_mappings[slot] = mapping;
    return true;
}

bool memory_remove(struct device *device, const struct vhost_user_region *region, struct error *err)
{
    struct guest_region removed;
    if (!guest_regions_remove(&device->regions, region->guest_address, region->user_address, region->size, &removed))
        return fail(err, ENOENT, "no memory region at guest address %#" PRIx64 " with %" PRIu64 " bytes",
                    region->guest_address, region->size);
    for (size_t i = 0; i < GUEST_REGIONS_MAX; i++) {
        if (device->region_mappings[i].start == removed.host)
            mapping_close(&device->region_mappings[i]);
    }
    return true;
}

void memory_clear(struct device *device)
{
    for (size_t i = 0; i < GUEST_REGIONS_MAX; i++)
        mapping_close(&device->region_mappings[i]);
    guest_regions_init(&device->regions);
    memory_update_logging(device);
}

bool memory_set_table(struct device *device, struct vhost_user_message *message, struct error *err)
{
    struct vhost_user_memory table = message->payload.memory;
    if (table.count > VHOST_USER_MAX_FDS || table.count != (uint32_t)message->fd_count)
        return fail(err, EINVAL,
                    "memory table of %u regions with %d file descriptors: they must be as many, at most %d",
                    table.count, message->fd_count, VHOST_USER_MAX_FDS);
    memory_clear(device);
    for (uint32_t i = 0; i < table.count; i++) {
        if (!memory_add(device, &table.regions[i], message->fds[i], err))
            return fail_prefix(err, "memory region %u: ", i);
    }
    return true;
}

/* Dirty log: one bit a page of guest memory, least significant bit first. ------------------------------------------ */

static void log_written(void *arg, uint64_t address, uint64_t length)
{
    struct device *device = arg;
    uint64_t first = address / VHOST_USER_LOG_PAGE, last = (address + length - 1) / VHOST_USER_LOG_PAGE;
    for (uint64_t page = first; page <= last && page / 8 < device->log.size; page++)
        __atomic_fetch_or(device->log.start + page / 8, (uint8_t)(1u << page % 8), __ATOMIC_SEQ_CST);
}

void memory_update_logging(struct device *device)
{
    bool logging = device->log.base && device->features & VIRTIO_BIT(VHOST_F_LOG_ALL);
    guest_regions_set_written(&device->regions, logging ? log_written : NULL, device);
}

bool memory_set_log(struct device *device, const struct vhost_user_log *log, int fd, struct error *err)
{
    struct mapping mapping;
    if (!mapping_open(&mapping, fd, log->mmap_offset, log->mmap_size, err))
        return fail_prefix(err, "dirty log: ");
    mapping_close(&device->log);
    device->log = mapping;
    memory_update_logging(device);
    return true;
}
