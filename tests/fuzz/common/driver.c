/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz harness without a fuzzing engine: every file given (a folder: its files, in order of their names), then
 * new inputs made from these by the harness's own mutator or by changes of bytes, which follow from the seed alone.
 *
 *     fuzz_NAME [--new COUNT] [--seconds LIMIT] [--seed NUMBER] [--verbose] [FILE|FOLDER...]
 *
 * When the harness or a sanitizer ends the program, the input under way is written to found-NAME in the current folder.
 * Put into tests/fuzz/regressions/fuzz_NAME/, it is a regression test from then on. An input that takes longer than
 * INPUT_SECONDS is a finding as well.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/math.h"
#include "base/vec.h"
#include "tests/fuzz/common/fuzz.h"

enum { INPUT_MAX = 65536, INPUT_SECONDS = 60, TIMED_OUT = 3 };

#pragma weak LLVMFuzzerCustomMutator
#pragma weak LLVMFuzzerCustomCrossOver
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

struct input {
    uint8_t *bytes;
    size_t size;
};
vec_of(inputs, struct input);

/* The one variable of the file's scope: a signal handler has no argument that could lead to it. */
static struct {
    const char *harness;
    const uint8_t *bytes;
    size_t size;
    struct fuzz_random random; /* of LLVMFuzzerMutate(), whose signature is the engine's */
} under_way;

static void save_input(void)
{
    char path[256];
    snprintf(path, sizeof path, "found-%s", under_way.harness);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || !under_way.bytes || write(fd, under_way.bytes, under_way.size) != (ssize_t)under_way.size)
        dprintf(FUZZ_REPORT_FD, "fuzz: the input cannot be written to %s\n", path);
    else
        dprintf(FUZZ_REPORT_FD,
                "fuzz: the input is in %s; as a regression test it belongs into tests/fuzz/regressions/%s/\n", path,
                under_way.harness);
}

static void on_signal(int number)
{
    if (number == SIGALRM)
        dprintf(FUZZ_REPORT_FD, "fuzz: an input of %zu bytes takes longer than %d seconds\n", under_way.size,
                INPUT_SECONDS);
    save_input();
    if (number == SIGALRM)
        _exit(TIMED_OUT);
    signal(number, SIG_DFL);
    raise(number);
}

static void watch_for_death(void)
{
    signal(SIGALRM, on_signal);
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(save_input);
        return; /* which reports the other signals itself */
    }
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGFPE, on_signal);
}

/* Refused inputs are explained at length; only reports of findings are of interest. --verbose shows all. */
static void silence(void)
{
    dup2(STDERR_FILENO, FUZZ_REPORT_FD);
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)(uintptr_t)FUZZ_REPORT_FD);
}

static void run_input(const uint8_t *bytes, size_t size)
{
    /* A copy of exactly its size, so that a sanitizer sees what is read behind its end. */
    uint8_t *copy = xmalloc(size);
    memcpy(copy, bytes, size);
    under_way.bytes = copy;
    under_way.size = size;
    alarm(INPUT_SECONDS);
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    under_way.bytes = NULL;
    free(copy);
}

/* ---- mutation ---- */

static size_t insert_bytes(uint8_t *data, size_t size, size_t max_size)
{
    struct fuzz_random *random = &under_way.random;
    size_t at = fuzz_draw(random, size + 1), count = MIN(1 + fuzz_draw(random, 16), max_size - size);
    memmove(data + at + count, data + at, size - at);
    uint8_t value = (uint8_t)fuzz_draw(random, 256);
    for (size_t i = 0; i < count; i++)
        data[at + i] = fuzz_draw(random, 2) ? value : (uint8_t)fuzz_draw(random, 256);
    return size + count;
}

static size_t erase_bytes(uint8_t *data, size_t size)
{
    struct fuzz_random *random = &under_way.random;
    size_t at = fuzz_draw(random, size), count = MIN(1 + fuzz_draw(random, 16), size - at);
    memmove(data + at, data + at + count, size - at - count);
    return size - count;
}

static void put_number(uint8_t *data, size_t size)
{
    struct fuzz_random *random = &under_way.random;
    uint64_t number = fuzz_interesting(random);
    size_t bytes = (size_t)1 << fuzz_draw(random, 4), at = fuzz_draw(random, size);
    if (fuzz_draw(random, 2))
        number = __builtin_bswap64(number) >> (64 - 8 * bytes);
    memcpy(data + at, &number, MIN(bytes, size - at));
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    struct fuzz_random *random = &under_way.random;
    if (!max_size)
        return 0;
    for (uint64_t left = 1 + fuzz_draw(random, 4); left; left--) {
        switch (size ? fuzz_draw(random, 6) : 0) {
        case 0: size = insert_bytes(data, size, max_size); break;
        case 1: size = erase_bytes(data, size); break;
        case 2: put_number(data, size); break;
        case 3: data[fuzz_draw(random, size)] ^= (uint8_t)(1u << fuzz_draw(random, 8)); break;
        case 4: data[fuzz_draw(random, size)] = (uint8_t)fuzz_draw(random, 256); break;
        default: memmove(data + fuzz_draw(random, size) / 2, data + size / 2, size - size / 2); break;
        }
    }
    return size;
}

static void run_new(const struct inputs *inputs, struct fuzz_random *random)
{
    static const struct input nothing = {(uint8_t *)"", 0};
    const struct input *one = inputs->count ? &inputs->items[fuzz_draw(random, inputs->count)] : &nothing;
    const struct input *other = inputs->count ? &inputs->items[fuzz_draw(random, inputs->count)] : &nothing;
    uint8_t *data = xmalloc(INPUT_MAX);
    size_t size = MIN(one->size, (size_t)INPUT_MAX);
    memcpy(data, one->bytes, size);
    if (LLVMFuzzerCustomCrossOver && !fuzz_draw(random, 4))
        size = LLVMFuzzerCustomCrossOver(one->bytes, one->size, other->bytes, other->size, data, INPUT_MAX,
                                         (unsigned)fuzz_draw(random, 0));
    for (uint64_t left = 1 + fuzz_draw(random, 3); left; left--) {
        under_way.random.state = fuzz_draw(random, 0);
        size = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(data, size, INPUT_MAX, (unsigned)fuzz_draw(random, 0))
                                       : LLVMFuzzerMutate(data, size, INPUT_MAX);
    }
    run_input(data, size);
    free(data);
}

/* ---- files ---- */

static void read_input(struct inputs *inputs, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        perror(path);
        exit(2);
    }
    struct input input = {xmalloc((size_t)status.st_size), (size_t)status.st_size};
    if (read(fd, input.bytes, input.size) != (ssize_t)input.size) {
        perror(path);
        exit(2);
    }
    close(fd);
    vec_push(inputs, input);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void read_inputs(struct inputs *inputs, const char *path)
{
    struct dirent **entries;
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
        read_input(inputs, path);
        return;
    }
    int count = scandir(path, &entries, is_visible, alphasort);
    for (int i = 0; i < count; i++) {
        char *file = xasprintf("%s/%s", path, entries[i]->d_name);
        read_input(inputs, file);
        free(file);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static uint64_t number_after(char ***argument)
{
    char *end, *text = *++*argument;
    uint64_t number = text ? strtoull(text, &end, 0) : 0;
    if (!text || !*text || *end) {
        fprintf(stderr, "fuzz: a number is missing behind an option\n");
        exit(2);
    }
    ++*argument;
    return number;
}

int main(int argc, char **argv)
{
    struct inputs inputs = {0};
    bool is_verbose = false;
    uint64_t count = 0, seconds = UINT64_MAX, done = 0;
    struct fuzz_random random = {1};
    const char *slash = strrchr(argv[0], '/');
    under_way.harness = slash ? slash + 1 : argv[0];
    for (char **argument = argv + 1; *argument;) {
        if (!strcmp(*argument, "--new"))
            count = number_after(&argument);
        else if (!strcmp(*argument, "--seconds"))
            seconds = number_after(&argument);
        else if (!strcmp(*argument, "--seed"))
            random.state = number_after(&argument);
        else if (!strcmp(*argument, "--verbose"))
            is_verbose = argument++;
        else
            read_inputs(&inputs, *argument++);
    }
    watch_for_death();
    if (!is_verbose)
        silence();
    run_input((const uint8_t *)"", 0);
    for (size_t i = 0; i < inputs.count; i++)
        run_input(inputs.items[i].bytes, inputs.items[i].size);
    time_t begin = time(NULL);
    for (; done < count && (uint64_t)(time(NULL) - begin) < seconds; done++)
        run_new(&inputs, &random);
    printf("%s: %zu inputs of the tree, %llu new ones, nothing found\n", under_way.harness, inputs.count,
           (unsigned long long)done);
    for (size_t i = 0; i < inputs.count; i++)
        free(inputs.items[i].bytes);
    vec_free(&inputs);
    return 0;
}
