/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: an engine reads or writes wrong bytes, sizes, holes or locks; many operations at once mix up.
 */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/io_file.h"
#include "base/iov.h"
#include "base/rng.h"

struct place {
    char path[64];
    enum io_engine engine;
    int extra_flags;
};

/* In the working directory's file system where possible: /tmp may be a tmpfs without O_DIRECT. */
static struct place new_place(enum io_engine engine, int extra_flags)
{
    struct place place = {.engine = engine, .extra_flags = extra_flags};
    strcpy(place.path, "./spindle-file-XXXXXX");
    int fd = mkstemp(place.path);
    if (fd < 0) {
        strcpy(place.path, "/tmp/spindle-file-XXXXXX");
        fd = mkstemp(place.path);
    }
    assert_true(fd >= 0);
    close(fd);
    return place;
}

static struct io_file *open_place(const struct place *place)
{
    struct error err = {0};
    struct io_file *file =
        io_file_open(loop_current(), place->path, O_RDWR | O_CREAT | place->extra_flags, 0600, place->engine, &err);
    if (!file)
        print_error("%s\n", err.message);
    assert_non_null(file);
    return file;
}

static void fill(unsigned char *data, size_t size, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    rng_fill(&rng, data, size);
}

#define BLOCK 4096
#define BLOCKS 256

struct worker {
    struct io_file *file;
    struct co_group *group;
    uint64_t seed;
    int rounds;
    unsigned char *model; /* blocks of this worker only: b % workers == index */
    int index, workers;
};

static void random_io(void *arg)
{
    struct worker *w = arg;
    struct rng rng;
    rng_seed(&rng, w->seed);
    unsigned char *buffer = try_aligned_alloc(4096, BLOCK);
    for (int i = 0; i < w->rounds; i++) {
        uint64_t block = rng_below(&rng, BLOCKS / w->workers) * w->workers + w->index;
        unsigned char *model = w->model + block * BLOCK;
        struct iovec iov[2] = {{buffer, 512}, {buffer + 512, BLOCK - 512}};
        if (rng_coin(&rng)) {
            rng_fill(&rng, model, BLOCK);
            memcpy(buffer, model, BLOCK);
            assert_int_equal(io_file_writev(w->file, iov, 2, block * BLOCK, rng_below(&rng, 10) == 0), BLOCK);
        } else {
            int64_t n = io_file_readv(w->file, iov, 2, block * BLOCK);
            assert_int_equal(n, BLOCK);
            assert_memory_equal(buffer, model, BLOCK);
        }
        if (rng_below(&rng, 30) == 0)
            assert_int_equal(io_file_datasync(w->file), 0);
    }
    free(buffer);
}

static int random_io_main(void *arg)
{
    struct place *place = arg;
    struct io_file *file = open_place(place);
    unsigned char *model = try_aligned_alloc(4096, BLOCKS * BLOCK);
    fill(model, BLOCKS * BLOCK, 77);
    struct iovec all = {model, BLOCKS * BLOCK};
    assert_int_equal(io_file_writev(file, &all, 1, 0, false), BLOCKS * BLOCK);
    struct co_group group;
    co_group_init(&group);
    struct worker workers[16];
    for (int i = 0; i < 16; i++) {
        workers[i] =
            (struct worker){.file = file, .seed = (uint64_t)i, .rounds = 40, .model = model, .index = i, .workers = 16};
        co_spawn(loop_current(), &group, random_io, &workers[i]);
    }
    co_group_wait(&group);
    unsigned char *found = try_aligned_alloc(4096, BLOCKS * BLOCK);
    all.iov_base = found;
    assert_int_equal(io_file_readv(file, &all, 1, 0), BLOCKS * BLOCK);
    assert_memory_equal(found, model, BLOCKS * BLOCK);
    free(found);
    free(model);
    io_file_close(file);
    return 0;
}

static void many_operations_at_once(void **state)
{
    const struct loop_kind *kind = *state;
    const enum io_engine engines[] = {IO_ENGINE_AUTO, IO_ENGINE_THREADS};
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        struct place place = new_place(engines[i], 0);
        run_on_loop(state, random_io_main, &place);
        unlink(place.path);
    }
    (void)kind;
}

static bool has_direct(const char *path)
{
    int fd = open(path, O_RDWR | O_DIRECT);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void direct_io(void **state)
{
    const enum io_engine engines[] = {IO_ENGINE_AUTO, IO_ENGINE_THREADS, IO_ENGINE_NATIVE};
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        struct place place = new_place(engines[i], O_DIRECT);
        if (has_direct(place.path))
            run_on_loop(state, random_io_main, &place);
        else
            print_message("no O_DIRECT here\n");
        unlink(place.path);
    }
}

struct cached {
    struct io_file *file;
    int rounds;
};

static void read_cached(void *arg)
{
    struct cached *c = arg;
    char buffer[4096];
    struct iovec iov = {buffer, sizeof buffer};
    for (int i = 0; i < c->rounds; i++)
        assert_int_equal(io_file_readv(c->file, &iov, 1, (uint64_t)(i % 16) * 4096), 4096);
}

/* 32 coroutines that read from the page cache: one system call takes the reads of all of them. */
static int batch_main(void *arg)
{
    struct cached c = {open_place(arg), 200};
    char *data = xcalloc(16, 4096);
    struct iovec iov = {data, 16 * 4096};
    assert_int_equal(io_file_writev(c.file, &iov, 1, 0, false), 16 * 4096);
    struct loop_stats before = loop_stats(loop_current());
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 32; i++)
        co_spawn(loop_current(), &group, read_cached, &c);
    co_group_wait(&group);
    struct loop_stats after = loop_stats(loop_current());
    uint64_t operations = after.operations - before.operations, calls = after.system_calls - before.system_calls;
    assert_int_equal(operations, 32 * 200);
    if (calls * 8 > operations)
        print_error("%lu system calls for %lu operations\n", (unsigned long)calls, (unsigned long)operations);
    assert_true(calls * 8 <= operations);
    free(data);
    io_file_close(c.file);
    return 0;
}

static void one_system_call_takes_many_reads(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, batch_main, &place);
    unlink(place.path);
}

static int end_of_file_main(void *arg)
{
    struct io_file *file = open_place(arg);
    char data[1000], back[3000];
    fill((unsigned char *)data, sizeof data, 3);
    struct iovec iov = {data, sizeof data};
    assert_int_equal(io_file_writev(file, &iov, 1, 500, false), 1000);
    assert_int_equal(io_file_size(file), 1500);
    struct iovec parts[3] = {{back, 700}, {back + 700, 0}, {back + 700, 2300}};
    assert_int_equal(io_file_readv(file, parts, 3, 0), 1500); /* short, at the end only */
    for (int i = 0; i < 500; i++)
        assert_int_equal(back[i], 0);
    assert_memory_equal(back + 500, data, 1000);
    assert_int_equal(io_file_readv(file, parts, 3, 1500), 0);
    assert_int_equal(io_file_readv(file, parts, 3, 1 << 30), 0);
    assert_int_equal(io_file_writev(file, parts, 0, 9000, false), 0);
    assert_int_equal(io_file_size(file), 1500);
    io_file_close(file);
    return 0;
}

static void reads_are_short_at_the_end_only(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, end_of_file_main, &place);
    unlink(place.path);
}

/* More elements than the kernel takes in one call. */
static int long_vector_main(void *arg)
{
    enum { N = 3000, EACH = 100 };
    struct io_file *file = open_place(arg);
    unsigned char *data = xmalloc(N * EACH), *back = xcalloc(N, EACH);
    struct iovec *iov = xcalloc(N, sizeof *iov);
    fill(data, N * EACH, 4);
    for (int i = 0; i < N; i++)
        iov[i] = (struct iovec){data + i * EACH, EACH};
    assert_int_equal(io_file_writev(file, iov, N, 10, false), N * EACH);
    for (int i = 0; i < N; i++)
        iov[i] = (struct iovec){back + (N - 1 - i) * EACH, EACH};
    assert_int_equal(io_file_readv(file, iov, N, 10), N * EACH);
    for (int i = 0; i < N; i++)
        assert_memory_equal(back + (N - 1 - i) * EACH, data + i * EACH, EACH);
    free(iov);
    free(data);
    free(back);
    io_file_close(file);
    return 0;
}

static void vectors_may_be_long(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, long_vector_main, &place);
    unlink(place.path);
}

static int holes_main(void *arg)
{
    struct io_file *file = open_place(arg);
    enum { MB = 1 << 20 };
    assert_int_equal(io_file_truncate(file, 8 * MB), 0);
    assert_int_equal(io_file_size(file), 8 * MB);
    assert_int_equal(io_file_seek_data(file, 0), -ENXIO);
    assert_int_equal(io_file_seek_hole(file, 5), 5);
    unsigned char *data = xmalloc(MB);
    memset(data, 0xaa, MB);
    struct iovec iov = {data, MB};
    assert_int_equal(io_file_writev(file, &iov, 1, 2 * MB, false), MB);
    assert_int_equal(io_file_seek_data(file, 0), 2 * MB);
    assert_int_equal(io_file_seek_hole(file, 2 * MB), 3 * MB);
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int code = io_file_fallocate(file, mode, 2 * MB, MB / 2);
    if (code != -EOPNOTSUPP) {
        assert_int_equal(code, 0);
        assert_int_equal(io_file_seek_data(file, 0), 2 * MB + MB / 2);
        assert_int_equal(io_file_readv(file, &iov, 1, 2 * MB), MB);
        assert_int_equal(data[0], 0);
        assert_int_equal(data[MB / 2], 0xaa);
    }
    code = io_file_fallocate(file, 0, 8 * MB, 4096);
    assert_true(code == 0 || code == -EOPNOTSUPP);
    if (!code)
        assert_int_equal(io_file_size(file), 8 * MB + 4096);
    assert_int_equal(io_file_truncate(file, 2 * MB), 0);
    assert_int_equal(io_file_seek_data(file, 0), -ENXIO);
    struct stat st;
    assert_int_equal(io_file_stat(file, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_size, 2 * MB);
    assert_int_equal(io_file_discard_device(file, 0, 4096), -ENOTSUP);
    free(data);
    io_file_close(file);
    return 0;
}

static void sizes_and_holes(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, holes_main, &place);
    unlink(place.path);
}

static int copy_main(void *arg)
{
    struct io_file *file = open_place(arg);
    unsigned char data[8192], back[8192];
    fill(data, sizeof data, 6);
    struct iovec iov = {data, sizeof data};
    assert_int_equal(io_file_writev(file, &iov, 1, 0, false), sizeof data);
    int64_t n = io_file_copy_range(file, 0, file, 65536, sizeof data);
    if (n != -EOPNOTSUPP && n != -EXDEV) {
        assert_int_equal(n, sizeof data);
        iov.iov_base = back;
        assert_int_equal(io_file_readv(file, &iov, 1, 65536), sizeof data);
        assert_memory_equal(back, data, sizeof data);
    }
    io_file_close(file);
    return 0;
}

static void copies_inside_the_kernel(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, copy_main, &place);
    unlink(place.path);
}

static int locks_main(void *arg)
{
    struct io_file *a = open_place(arg), *b = open_place(arg);
    assert_int_equal(io_file_lock(a, 100, 10, false), 0);
    assert_int_equal(io_file_lock(b, 100, 10, false), 0); /* shared twice */
    assert_int_equal(io_file_lock_test(b, 105, 1, true), -EAGAIN);
    assert_int_equal(io_file_lock(b, 105, 1, true), -EAGAIN);
    assert_int_equal(io_file_lock(b, 110, 1, true), 0); /* beside it */
    assert_int_equal(io_file_lock_test(a, 110, 1, false), -EAGAIN);
    assert_int_equal(io_file_unlock(a, 104, 2), 0); /* out of the middle */
    assert_int_equal(io_file_lock(b, 104, 2, true), 0);
    assert_int_equal(io_file_lock_test(b, 103, 1, true), -EAGAIN);
    assert_int_equal(io_file_lock_test(b, 106, 1, true), -EAGAIN);
    assert_int_equal(io_file_lock_test(a, 104, 1, false), -EAGAIN);
    io_file_close(b); /* drops its locks, and not those of the other opening */
    assert_int_equal(io_file_lock(a, 104, 1, true), 0);
    b = open_place(arg);
    assert_int_equal(io_file_lock_test(b, 100, 1, true), -EAGAIN);
    io_file_close(a);
    io_file_close(b);
    return 0;
}

static void locks_belong_to_openings(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, locks_main, &place);
    unlink(place.path);
}

static int errors_main(void *arg)
{
    struct error err = {0};
    assert_null(io_file_open(loop_current(), "/nonexistent/file", O_RDONLY, 0, IO_ENGINE_AUTO, &err));
    assert_int_equal(err.code, ENOENT);
    assert_non_null(strstr(err.message, "'/nonexistent/file'"));
    assert_non_null(strstr(err.message, "No such file"));
    error_clear(&err);
    const struct place *place = arg;
    struct io_file *file = io_file_open(loop_current(), place->path, O_RDWR | O_CREAT, 0600, IO_ENGINE_AUTO, &err);
    io_file_close(file);
    file = io_file_open(loop_current(), place->path, O_RDONLY, 0, IO_ENGINE_AUTO, &err);
    struct iovec iov = {(char[]){"x"}, 1};
    assert_int_equal(io_file_writev(file, &iov, 1, 0, false), -EBADF);
    io_file_close(file);
    if (!is_simulated()) {
        assert_null(io_file_open(loop_current(), place->path, O_RDONLY, 0, IO_ENGINE_NATIVE, &err));
        assert_non_null(strstr(err.message, "O_DIRECT"));
        error_clear(&err);
        if (loop_backend(loop_current()) != LOOP_URING) {
            assert_null(io_file_open(loop_current(), place->path, O_RDONLY, 0, IO_ENGINE_URING, &err));
            assert_non_null(strstr(err.message, "io_uring"));
            error_clear(&err);
        }
        assert_null(io_file_from_fd(loop_current(), -1, IO_ENGINE_AUTO, &err));
        error_clear(&err);
    }
    return 0;
}

static void errors_name_the_file(void **state)
{
    struct place place = new_place(IO_ENGINE_AUTO, 0);
    run_on_loop(state, errors_main, &place);
    unlink(place.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(many_operations_at_once),
        ON_REAL_LOOPS(direct_io),
        ONE_LOOP(one_system_call_takes_many_reads, kind_uring),
        ON_EVERY_LOOP(reads_are_short_at_the_end_only),
        ON_EVERY_LOOP(vectors_may_be_long),
        ON_EVERY_LOOP(sizes_and_holes),
        ON_EVERY_LOOP(copies_inside_the_kernel),
        ON_EVERY_LOOP(locks_belong_to_openings),
        ON_EVERY_LOOP(errors_name_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
