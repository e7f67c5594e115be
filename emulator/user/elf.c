/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading an executable as Linux's binfmt_elf does: check the header, reserve what the PT_LOADs span, map each of them
 * over it, zero what the file does not have. The file is not to be trusted: every number of it is checked before use
 * (tests/fuzz/fuzz_user_elf.c).
 */
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/user/user.h"

enum { MAX_HEADERS = 256, MACHINE_RISCV = 243, FLAG_RVE = 8 };

struct file {
    struct space *space;
    int fd;
    const char *name;
    uint64_t size;
    Elf64_Ehdr header;
    Elf64_Phdr *programs;
};

static bool read_at(const struct file *f, void *to, size_t size, uint64_t offset)
{
    return offset <= f->size && size <= f->size - offset && pread(f->fd, to, size, (off_t)offset) == (ssize_t)size;
}

static bool is_riscv64(const Elf64_Ehdr *h)
{
    return !memcmp(h->e_ident, ELFMAG, SELFMAG) && h->e_ident[EI_CLASS] == ELFCLASS64 &&
           h->e_ident[EI_DATA] == ELFDATA2LSB && h->e_machine == MACHINE_RISCV;
}

bool user_is_ours(int fd)
{
    Elf64_Ehdr header;
    return pread(fd, &header, sizeof header, 0) == sizeof header && is_riscv64(&header);
}

static bool read_header(struct file *f, struct error *err)
{
    struct stat st;
    Elf64_Ehdr *h = &f->header;
    if (fstat(f->fd, &st))
        return fail_errno(err, errno, "%s: cannot look at it", f->name);
    if (!S_ISREG(st.st_mode))
        return fail(err, EACCES, "%s: not a regular file", f->name);
    f->size = (uint64_t)st.st_size;
    if (!read_at(f, h, sizeof *h, 0) || memcmp(h->e_ident, ELFMAG, SELFMAG))
        return fail(err, ENOEXEC, "%s: not an ELF executable", f->name);
    if (!is_riscv64(h))
        return fail(
            err, ENOEXEC,
            "%s: an ELF file for machine %u, class %u, data %u; 64-bit little-endian RISC-V (machine 243) is needed",
            f->name, h->e_machine, h->e_ident[EI_CLASS], h->e_ident[EI_DATA]);
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
        return fail(err, ENOEXEC, "%s: an ELF file of type %u, not an executable", f->name, h->e_type);
    if (h->e_flags & FLAG_RVE)
        return fail(err, ENOEXEC, "%s: made for RV64E, which has 16 registers only", f->name);
    if (h->e_phentsize != sizeof(Elf64_Phdr) || !h->e_phnum || h->e_phnum > MAX_HEADERS)
        return fail(err, ENOEXEC, "%s: %u program headers of %u bytes; 1 to %u of %zu are understood", f->name,
                    h->e_phnum, h->e_phentsize, MAX_HEADERS, sizeof(Elf64_Phdr));
    f->programs = new_array(Elf64_Phdr, h->e_phnum);
    if (!read_at(f, f->programs, h->e_phnum * sizeof(Elf64_Phdr), h->e_phoff))
        return fail(err, ENOEXEC, "%s: its program headers lie beyond its end", f->name);
    return true;
}

/* --- the span of the segments ------------------------------------------------------------------------------------ */

static uint64_t page_down(uint64_t x)
{
    return x & ~(uint64_t)(SPACE_PAGE - 1);
}

static uint64_t page_up(uint64_t x)
{
    return page_down(x + SPACE_PAGE - 1);
}

static bool check_segment(const struct file *f, const Elf64_Phdr *p, struct error *err)
{
    bool sizes = p->p_filesz <= p->p_memsz && p->p_memsz <= f->space->size && p->p_vaddr <= f->space->size;
    if (!sizes || p->p_filesz > f->size || p->p_offset > f->size - p->p_filesz)
        return fail(err, ENOEXEC,
                    "%s: a segment of 0x%llx bytes (0x%llx in the file at 0x%llx) at 0x%llx is not possible", f->name,
                    (unsigned long long)p->p_memsz, (unsigned long long)p->p_filesz, (unsigned long long)p->p_offset,
                    (unsigned long long)p->p_vaddr);
    if ((p->p_vaddr - p->p_offset) % SPACE_PAGE)
        return fail(err, ENOEXEC, "%s: the segment at 0x%llx has another offset in its page in the file", f->name,
                    (unsigned long long)p->p_vaddr);
    return true;
}

static bool find_span(const struct file *f, struct user_image *image, struct error *err)
{
    image->low = UINT64_MAX;
    for (unsigned i = 0; i < f->header.e_phnum; i++) {
        const Elf64_Phdr *p = &f->programs[i];
        if (p->p_type != PT_LOAD || !p->p_memsz)
            continue;
        if (!check_segment(f, p, err))
            return false;
        if (page_down(p->p_vaddr) < image->low)
            image->low = page_down(p->p_vaddr);
        if (p->p_vaddr + p->p_memsz > image->high)
            image->high = p->p_vaddr + p->p_memsz;
    }
    if (image->low > image->high)
        return fail(err, ENOEXEC, "%s: it has nothing to load", f->name);
    if (!space_holds(f->space, image->low, page_up(image->high) - image->low))
        return fail(err, ENOEXEC, "%s: it does not fit into the address space", f->name);
    return true;
}

static bool reserve_span(const struct file *f, uint64_t at, struct user_image *image, struct error *err)
{
    bool fixed = f->header.e_type == ET_EXEC;
    uint64_t length = page_up(image->high) - image->low;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (fixed ? MAP_FIXED_NOREPLACE : 0);
    int64_t got = space_map(f->space, fixed ? image->low : at, length, PROT_NONE, flags, -1, 0);
    if (got < 0)
        return fail_errno(err, (int)-got, "%s: no room for 0x%llx bytes at 0x%llx", f->name, (unsigned long long)length,
                          (unsigned long long)image->low);
    image->bias = (uint64_t)got - image->low;
    return true;
}

/* --- mapping ----------------------------------------------------------------------------------------------------- */

static int prot_of(const Elf64_Phdr *p)
{
    return (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) |
           (p->p_flags & PF_X ? PROT_EXEC : 0);
}

/* The rest of the last page of the file, and whole pages behind it. */
static int64_t map_zeros(const struct file *f, const Elf64_Phdr *p, uint64_t bias)
{
    static const char zeros[SPACE_PAGE];
    uint64_t from = bias + p->p_vaddr + p->p_filesz, end = bias + p->p_vaddr + p->p_memsz;
    uint64_t whole = p->p_filesz ? page_up(from) : page_down(from);
    int prot = prot_of(p);
    if (p->p_filesz && whole > from) {
        uint64_t start = page_down(from);
        int64_t opened =
            prot & PROT_WRITE ? 0 : space_protect(f->space, start, SPACE_PAGE, prot | PROT_READ | PROT_WRITE);
        if (opened < 0 || !space_write(f->space, from, zeros, whole - from))
            return opened < 0 ? opened : -EFAULT;
        if (!(prot & PROT_WRITE))
            space_protect(f->space, start, SPACE_PAGE, prot);
    }
    return end <= whole ? 0
                        : space_map(f->space, whole, end - whole, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static bool map_segment(const struct file *f, const Elf64_Phdr *p, uint64_t bias, struct error *err)
{
    uint64_t start = page_down(p->p_vaddr), length = p->p_vaddr + p->p_filesz - start;
    int64_t result = 0;
    if (p->p_filesz)
        result = space_map(f->space, bias + start, length, prot_of(p), MAP_PRIVATE | MAP_FIXED, f->fd,
                           page_down(p->p_offset));
    if (result >= 0 && p->p_memsz > p->p_filesz)
        result = map_zeros(f, p, bias);
    return result >= 0 || fail_errno(err, (int)-result, "%s: cannot map its segment at 0x%llx", f->name,
                                     (unsigned long long)p->p_vaddr);
}

static bool read_interpreter(const struct file *f, const Elf64_Phdr *p, struct user_image *image, struct error *err)
{
    size_t size = p->p_filesz;
    if (size < 2 || size > sizeof image->interpreter || !read_at(f, image->interpreter, size, p->p_offset) ||
        image->interpreter[size - 1])
        return fail(err, ENOEXEC, "%s: the name of its interpreter is not a string", f->name);
    return true;
}

static bool map_all(const struct file *f, struct user_image *image, struct error *err)
{
    for (unsigned i = 0; i < f->header.e_phnum; i++) {
        const Elf64_Phdr *p = &f->programs[i];
        uint64_t from = f->header.e_phoff - p->p_offset;
        if (p->p_type == PT_GNU_STACK)
            image->executable_stack = p->p_flags & PF_X;
        if (p->p_type == PT_INTERP && !read_interpreter(f, p, image, err))
            return false;
        if (p->p_type != PT_LOAD || !p->p_memsz)
            continue;
        if (f->header.e_phoff >= p->p_offset && from < p->p_filesz)
            image->header = image->bias + p->p_vaddr + from;
        if (!map_segment(f, p, image->bias, err))
            return false;
    }
    return true;
}

bool user_load(struct space *space, int fd, const char *name, uint64_t at, struct user_image *image, struct error *err)
{
    struct file f = {.space = space, .fd = fd, .name = name};
    *image = (struct user_image){0};
    bool ok = read_header(&f, err) && find_span(&f, image, err) && reserve_span(&f, at, image, err) &&
              map_all(&f, image, err);
    free(f.programs);
    image->entry = f.header.e_entry + image->bias;
    image->header_count = f.header.e_phnum;
    image->low += image->bias;
    image->high += image->bias;
    return ok;
}
