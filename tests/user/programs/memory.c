/* SPDX-License-Identifier: Apache-2.0 */
/* mmap and its family, code that is written and changed at run time, through one mapping and through two. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "check.h"

static sigjmp_buf back;
static void jump(int number)
{
    siglongjmp(back, 1);
}

#define FAULTS(statement)                                                                                              \
    ({                                                                                                                 \
        int faulted = sigsetjmp(back, 1);                                                                              \
        if (!faulted) {                                                                                                \
            statement;                                                                                                 \
        }                                                                                                              \
        faulted;                                                                                                       \
    })

static void mappings(void)
{
    const size_t page = 4096;
    char *a = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(a != MAP_FAILED && ((uintptr_t)a & (page - 1)) == 0);
    memset(a, 'a', 16 * page);
    CHECK(mprotect(a + page, page, PROT_READ) == 0);
    CHECK(FAULTS(*(volatile char *)(a + page) = 'b') && a[page] == 'a');
    CHECK(mprotect(a + page, page, PROT_NONE) == 0);
    CHECK(FAULTS((void)*(volatile char *)(a + page)));
    CHECK(mprotect(a + page, page, PROT_READ | PROT_WRITE) == 0 && a[page] == 'a');
    CHECK(munmap(a + 4 * page, 2 * page) == 0);
    CHECK(FAULTS((void)*(volatile char *)(a + 5 * page)));
    CHECK(mprotect(a, 16 * page, PROT_READ) == -1 && errno == ENOMEM);
    CHECK(mprotect(a + 1, page, PROT_READ) == -1 && errno == EINVAL);
    char *fixed = mmap(a + 4 * page, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(fixed == a + 4 * page && *fixed == 0);
    CHECK(mmap(a, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED &&
          errno == EEXIST);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    CHECK(mmap(NULL, 1ul << 50, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    CHECK(munmap((void *)(1ul << 55), page) == -1 && errno == EINVAL);

    char *b = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(b, 'x', 4 * page);
    char *c = mremap(b, 4 * page, 64 * page, MREMAP_MAYMOVE);
    CHECK(c != MAP_FAILED && c[0] == 'x' && c[4 * page - 1] == 'x' && c[4 * page] == 0 && c[64 * page - 1] == 0);
    CHECK(mremap(c, 64 * page, 2 * page, 0) == c && FAULTS((void)*(volatile char *)(c + 2 * page)));
    char *d = mmap(NULL, 8 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mremap(c, 2 * page, 3 * page, MREMAP_MAYMOVE | MREMAP_FIXED, d + page) == d + page && d[page] == 'x');
    CHECK(FAULTS((void)*(volatile char *)c) && d[3 * page] == 0);

    CHECK(madvise(d + page, page, MADV_DONTNEED) == 0 && d[page] == 0);
    unsigned char present[2];
    CHECK(mincore(a, page, present) == 0 && (present[0] & 1));

    void *start = sbrk(0);
    CHECK(sbrk(100000) == start);
    memset(start, 1, 100000);
    CHECK(sbrk(-100000) != (void *)-1 && sbrk(0) == start);
    printf("mappings\n");
}

static void files(void)
{
    char name[] = "/tmp/spindle-user-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0);
    CHECK(write(fd, "0123456789", 10) == 10 && ftruncate(fd, 8192) == 0);
    char *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(shared != MAP_FAILED && private != MAP_FAILED && !memcmp(shared, "0123456789", 10));
    shared[0] = 'S';
    private[1] = 'P';
    char now[4] = {0};
    CHECK(pread(fd, now, 2, 0) == 2 && !strcmp(now, "S1"));
    CHECK(msync(shared, 8192, MS_SYNC) == 0);
    char *grown = mremap(private, 4096, 4096, MREMAP_MAYMOVE);
    CHECK(grown == private && private[1] == 'P');
    printf("files\n");
}

/* --- code --- */

static void put_return(uint32_t *code, int value) /* li a0, value; ret */
{
    code[0] = 0x00000513 | (uint32_t)value << 20;
    code[1] = 0x00008067;
}

static void changed_code(void)
{
    uint32_t *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int (*fn)(void) = (int (*)(void))code;
    CHECK(code != MAP_FAILED);
    long sum = 0;
    for (int i = 0; i < 300; i++) {
        put_return(code, i);
        __asm__ volatile("fence.i" ::: "memory");
        sum += fn();
    }
    CHECK(sum == 300 * 299 / 2);
    for (int i = 0; i < 100; i++) { /* over the end of a page */
        uint32_t *at = code + 1023;
        put_return(at, i);
        __builtin___clear_cache((char *)at, (char *)(at + 2));
        CHECK(((int (*)(void))at)() == i);
    }
    int fds[2];
    uint32_t next[2];
    CHECK(pipe(fds) == 0);
    put_return(next, 777);
    put_return(code, 1);
    __builtin___clear_cache((char *)code, (char *)(code + 2));
    CHECK(fn() == 1);
    CHECK(write(fds[1], next, 8) == 8 && read(fds[0], code, 8) == 8); /* the kernel writes */
    __builtin___clear_cache((char *)code, (char *)(code + 2));
    CHECK(fn() == 777);
    CHECK(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
    CHECK(FAULTS(fn()));
    CHECK(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0 && fn() == 777);
    CHECK(FAULTS(code[0] = 0));
    CHECK(munmap(code, 4096) == 0 && FAULTS(fn()));
    printf("changed code\n");
}

static void two_mappings(void)
{
    int fd = memfd_create("code", 0);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    uint32_t *writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint32_t *executable = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    CHECK(writable != MAP_FAILED && executable != MAP_FAILED);
    for (int i = 0; i < 50; i++) {
        put_return(writable, i);
        if (i & 1)
            __asm__ volatile("fence.i" ::: "memory");
        else
            syscall(259, executable, executable + 2, 0ul);
        CHECK(((int (*)(void))executable)() == i);
    }
    printf("two mappings\n");
}

/* One thread runs what the other changes: each call sees the old or the new value. */
static uint32_t *patched;
static _Atomic int done;
static void *patcher(void *opaque)
{
    for (int i = 0; i < 2000; i++) {
        __atomic_store_n(&patched[0], 0x00000513u | (uint32_t)(i % 2 ? 100 : 200) << 20, __ATOMIC_RELEASE);
        __builtin___clear_cache((char *)patched, (char *)(patched + 2));
    }
    done = 1;
    return NULL;
}

static void patched_by_thread(void)
{
    pthread_t thread;
    patched = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    put_return(patched, 100);
    CHECK(pthread_create(&thread, NULL, patcher, NULL) == 0);
    while (!done) {
        int value = ((int (*)(void))patched)();
        CHECK(value == 100 || value == 200);
    }
    pthread_join(thread, NULL);
    __builtin___clear_cache((char *)patched, (char *)(patched + 2));
    CHECK(((int (*)(void))patched)() == 100);
    printf("patched\n");
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGSEGV, jump);
    mappings();
    files();
    changed_code();
    two_mappings();
    patched_by_thread();
    return 0;
}
