/* SPDX-License-Identifier: Apache-2.0 */
/* Images for the guest's memory: see the header. ELF is the System V ABI's chapters 4 and 5; a raw Linux image says in
 * its header how much memory it needs (Linux, Documentation/arch/riscv/boot-image-header). */
#include "emulator/hw/loader.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/math.h"
#include "emulator/memory/physmap.h"

#define PROGRAM_LIMIT (2 * GiB)

/* --- the list ------------------------------------------------------------------------------------------------------
 */

static void image_clear(struct image *image)
{
    free(image->name);
    free(image->data);
}

void image_list_clear(struct image_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        image_clear(&list->images[i]);
    list->count = 0;
}

void image_list_remove(struct image_list *list, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->images[i].name, name) == 0)
            image_clear(&list->images[i]);
        else
            list->images[kept++] = list->images[i];
    }
    list->count = kept;
}

bool image_list_add(struct image_list *list, const char *name, uint64_t address, void *data, size_t data_size,
                    uint64_t size, struct error *err)
{
    auto_free void *owned = data;
    uint64_t end;
    if (list->count == IMAGES_MAX)
        return fail(err, ENOSPC, "%s: more than %u pieces to load", name, IMAGES_MAX);
    if (add_overflows(address, size, &end))
        return fail(err, EINVAL, "%s: 0x%" PRIx64 " bytes at 0x%" PRIx64 " wrap around", name, size, address);
    for (size_t i = 0; i < list->count; i++) {
        const struct image *other = &list->images[i];
        if (spans_overlap(address, size, other->address, other->size))
            return fail(err, EINVAL,
                        "%s at 0x%" PRIx64 " (0x%" PRIx64 " bytes) would overwrite %s at 0x%" PRIx64 " (0x%" PRIx64
                        " bytes)",
                        name, address, size, other->name, other->address, other->size);
    }
    list->images[list->count++] = (struct image){xstrdup(name), address, size, TAKE(owned), data_size};
    return true;
}

bool image_list_write(const struct image_list *list, struct physmap *memory, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct image *image = &list->images[i];
        uint8_t *host = physmap_pointer(memory, image->address, image->size, false);
        if (!host)
            return fail(err, EFAULT,
                        "%s needs 0x%" PRIx64 " bytes at 0x%" PRIx64
                        ", where the machine has not that much memory (see -m)",
                        image->name, image->size, image->address);
        memcpy(host, image->data, image->data_size);
        memset(host + image->data_size, 0, image->size - image->data_size);
        physmap_note_write(memory, image->address, image->size);
    }
    return true;
}

/* --- files ---------------------------------------------------------------------------------------------------------
 */

void *load_file(const char *path, size_t limit, size_t *size, struct error *err)
{
    struct stat st;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno_null(err, errno, "cannot open '%s'", path);
    if (!S_ISREG(st.st_mode))
        return fail_null(err, EINVAL, "'%s' is not a regular file", path);
    if ((uint64_t)st.st_size > limit)
        return fail_null(err, EFBIG, "'%s' has %lld bytes: at most %zu fit", path, (long long)st.st_size, limit);
    auto_free uint8_t *data = try_calloc(1, (size_t)st.st_size + 1);
    if (!data)
        return fail_null(err, ENOMEM, "'%s': out of memory", path);
    size_t done = 0;
    while (done < (size_t)st.st_size) {
        ssize_t got = read(fd, data + done, (size_t)st.st_size - done);
        if (got < 0 && errno != EINTR)
            return fail_errno_null(err, errno, "cannot read '%s'", path);
        if (got == 0)
            break; /* it has become shorter */
        done += got > 0 ? (size_t)got : 0;
    }
    *size = done;
    return TAKE(data);
}

/* --- programs --------------------------------------------------------------------------------------------------------
 */

static bool is_elf(const uint8_t *data, size_t size)
{
    return size >= sizeof(Elf64_Ehdr) && memcmp(data, ELFMAG, SELFMAG) == 0;
}

static bool load_segment(struct image_list *list, const char *path, const uint8_t *data, size_t size,
                         const Elf64_Phdr *segment, struct program *program, struct error *err)
{
    uint64_t address = le64toh(segment->p_paddr), memory_size = le64toh(segment->p_memsz);
    uint64_t offset = le64toh(segment->p_offset), file_size = le64toh(segment->p_filesz);
    if (!memory_size)
        return true;
    if (!span_fits(offset, file_size, size) || file_size > memory_size || memory_size > PROGRAM_LIMIT)
        return fail(err, EINVAL, "'%s': a program header points outside of the file", path);
    if (!image_list_add(list, path, address, xmemdup(data + offset, file_size), file_size, memory_size, err))
        return false;
    program->start = MIN(program->start, address);
    program->end = MAX(program->end, address + memory_size);
    return true;
}

static bool load_elf(struct image_list *list, const char *path, const uint8_t *data, size_t size,
                     struct program *program, struct error *err)
{
    Elf64_Ehdr header;
    memcpy(&header, data, sizeof header);
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        le16toh(header.e_machine) != EM_RISCV)
        return fail(err, EINVAL, "'%s' is an ELF file for another machine: RISC-V, 64 bits, little endian is needed",
                    path);
    uint64_t table = le64toh(header.e_phoff), count = le16toh(header.e_phnum);
    if (le16toh(header.e_phentsize) != sizeof(Elf64_Phdr) || !span_fits(table, count * sizeof(Elf64_Phdr), size))
        return fail(err, EINVAL, "'%s': the table of program headers is outside of the file", path);
    *program = (struct program){.entry = le64toh(header.e_entry), .start = UINT64_MAX};
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Phdr segment;
        memcpy(&segment, data + table + i * sizeof segment, sizeof segment);
        if (le32toh(segment.p_type) == PT_LOAD && !load_segment(list, path, data, size, &segment, program, err))
            return false;
    }
    return program->end || fail(err, EINVAL, "'%s': nothing to load in it", path);
}

/* A Linux image names the memory that it will use, .bss included; others use what they fill. */
static uint64_t memory_of_raw(const uint8_t *data, size_t size)
{
    enum { IMAGE_SIZE = 16, MAGIC2 = 56 };
    if (size < 64 || memcmp(data + MAGIC2, "RSC\x05", 4) != 0)
        return size;
    uint64_t memory = load_le64(data + IMAGE_SIZE);
    return memory > size && memory < PROGRAM_LIMIT ? memory : size;
}

bool load_program(struct image_list *list, const char *path, uint64_t address, struct program *program,
                  struct error *err)
{
    size_t size;
    auto_free uint8_t *data = load_file(path, PROGRAM_LIMIT, &size, err);
    if (!data)
        return false;
    if (is_elf(data, size))
        return load_elf(list, path, data, size, program, err);
    *program = (struct program){address, address, address + memory_of_raw(data, size)};
    return image_list_add(list, path, address, TAKE(data), size, size, err);
}
