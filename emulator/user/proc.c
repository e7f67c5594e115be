/* SPDX-License-Identifier: Apache-2.0 */
#include "emulator/user/proc.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cleanup.h"

/* What is behind /proc/self/ or /proc/<our pid>/; NULL: another file. */
static const char *own_file(const char *path)
{
    char *end;
    if (strncmp(path, "/proc/", 6))
        return NULL;
    path += 6;
    if (!strncmp(path, "self/", 5))
        return path + 5;
    if (!strncmp(path, "thread-self/", 12))
        return path + 12;
    long pid = strtol(path, &end, 10);
    return isdigit((unsigned char)*path) && *end == '/' && pid == getpid() ? end + 1 : NULL;
}

bool user_path_is_exe(struct user_process *process, const char *guest)
{
    const char *file = own_file(guest);
    return file && !strcmp(file, "exe");
}

/* --- contents ---------------------------------------------------------------------------------------------------- */

static void write_memory(struct user_process *process, FILE *out, uint64_t from, uint64_t to)
{
    char buffer[4096];
    while (from < to) {
        size_t part = to - from < sizeof buffer ? (size_t)(to - from) : sizeof buffer;
        if (!space_read(&process->space, buffer, from, part))
            return;
        fwrite(buffer, 1, part, out);
        from += part;
    }
}

static void write_arguments(struct user_process *process, FILE *out)
{
    write_memory(process, out, process->arguments, process->arguments_end);
}

static void write_environment(struct user_process *process, FILE *out)
{
    write_memory(process, out, process->environment, process->environment_end);
}

static void write_auxv(struct user_process *process, FILE *out)
{
    write_memory(process, out, process->auxv, process->auxv_end);
}

static const char *name_of_range(const struct user_process *process, uint64_t low, uint64_t high, const char *host_name)
{
    if (low <= process->stack_high - 1 && high > process->stack_low)
        return "[stack]";
    if (process->space.break_end > process->space.break_start && low == process->space.break_start)
        return "[heap]";
    return host_name;
}

static char letter(uint8_t bits, uint8_t bit, char c)
{
    return bits & bit ? c : '-';
}

/* One range of the host's, which may hold ranges of the guest's with different rights, or none. */
static void write_range(struct user_process *process, FILE *out, uint64_t low, uint64_t high, const char *rest,
                        uint64_t offset, bool is_file)
{
    const struct space *space = &process->space;
    enum { CODE = SPACE_CODE };
    char device[64] = "00:00", name[PATH_MAX] = "";
    unsigned long long inode = 0;
    sscanf(rest, "%63s %llu %4095[^\n]", device, &inode, name);
    while (low < high) {
        uint8_t bits = atomic_load(&space->pages[low / SPACE_PAGE]) & ~CODE;
        uint64_t end = low + SPACE_PAGE;
        while (end < high && (atomic_load(&space->pages[end / SPACE_PAGE]) & ~CODE) == bits)
            end += SPACE_PAGE;
        if (bits) {
            int column = fprintf(out, "%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %s %llu ", low, end,
                                 letter(bits, RISCV_PAGE_READ, 'r'), letter(bits, RISCV_PAGE_WRITE, 'w'),
                                 letter(bits, RISCV_PAGE_EXECUTE, 'x'), bits & SPACE_SHARED ? 's' : 'p',
                                 is_file ? offset : 0, device, inode);
            const char *shown = name_of_range(process, low, end, name);
            fprintf(out, "%*s%s\n", *shown && column < 73 ? 73 - column : 0, "", shown);
        }
        offset += end - low;
        low = end;
    }
}

static void write_maps(struct user_process *process, FILE *out)
{
    struct space *space = &process->space;
    FILE *host = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t capacity = 0;
    uint64_t base = (uint64_t)(uintptr_t)space->base, low, high, offset;
    int rest;
    while (host && getline(&line, &capacity, host) > 0) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %n", &low, &high, &offset, &rest) != 3)
            continue;
        if (high <= base || low >= base + space->size)
            continue;
        if (low < base)
            low = base;
        if (high > base + space->size)
            high = base + space->size;
        write_range(process, out, low - base, high - base, line + rest, offset, strchr(line, '/') != NULL);
    }
    free(line);
    if (host)
        fclose(host);
}

static void write_cpuinfo(struct user_process *process, FILE *out)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < count; i++)
        fprintf(
            out,
            "processor\t: %ld\nhart\t\t: %ld\nisa\t\t: rv64imafdcv_zicntr_zicsr_zifencei_zba_zbb_zbs\nmmu\t\t: sv39\n\n",
            i, i);
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static const struct file {
    const char *name;
    void (*write)(struct user_process *process, FILE *out); /* NULL: no */
} files[] = {
    {"cmdline", write_arguments},
    {"environ", write_environment},
    {"auxv", write_auxv},
    {"maps", write_maps},
    {"mem", NULL},
};

static int64_t make(struct user_process *process, const struct file *file)
{
    if (!file->write)
        return -EACCES; /* the emulator's memory */
    int fd = memfd_create(file->name, MFD_CLOEXEC);
    int copy = fd < 0 ? -1 : dup(fd);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
    if (!out) {
        if (fd >= 0)
            close(fd);
        return -EMFILE;
    }
    file->write(process, out);
    fclose(out);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

bool proc_open(struct user_process *process, const char *path, int flags, int64_t *result)
{
    static const struct file cpuinfo = {"cpuinfo", write_cpuinfo};
    const char *own;
    if (strncmp(path, "/proc/", 6))
        return false;
    if (!strcmp(path, "/proc/cpuinfo")) {
        *result = make(process, &cpuinfo);
        return true;
    }
    own = own_file(path);
    if (own && !strcmp(own, "exe")) {
        int fd = open(process->program, flags & ~(O_CREAT | O_TRUNC));
        *result = fd < 0 ? -errno : fd;
        return true;
    }
    for (unsigned i = 0; own && i < sizeof files / sizeof files[0]; i++) {
        if (!strcmp(own, files[i].name)) {
            *result = make(process, &files[i]);
            return true;
        }
    }
    return false;
}
