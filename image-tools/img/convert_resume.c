/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert --resume: goes on after ^C, a kill or a power cut.
 *
 * Beside the target lies a small file, TARGET.resume, that says: everything below this offset of the target is stored,
 * and on stable storage. It is written at the beginning, then again and again while the conversion runs, and is removed
 * when it has succeeded. The next run reads it, looks whether everything is as it was, and begins at that offset.
 *
 * Why the offset can be believed, whenever the power fails:
 *
 *   1. Workers take pieces in the order of the target, so at any time everything below the lowest piece in work has
 *      been written. That offset is taken first; then the target is flushed, down to the disk: so the target's cache
 *      mode is writeback where it would be "unsafe". A format writes its metadata at a flush too, in an order of its
 * own that survives a cut (formats/qcow2/sync.c).
 *   2. Only then is the state written: to a file of another name, which is synced and takes the place of the old one by
 *      rename. A cut leaves the old state or the new one, and either is true.
 *   3. What lies behind the offset may be there, in part or not at all. Nothing is concluded from it: the next run
 *      writes it again, and where the source has zeroes, it makes zeroes of whatever the target's map does not say to
 *      be zero. Metadata is checked first, and clusters that were allocated and never linked are given back.
 *
 * Why source and target are still the same: the state has the sizes, the times of change of the sources' files, their
 * backing files too, and a digest of samples of the content (a device has no time of change). Of the target it has the
 * inode, and some of what is said to be done is compared with the sources. Device numbers are not looked at: they may
 * change when the host starts. With --checksum, everything is compared in the end.
 */
#include "image-tools/img/convert_resume.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "base/size.h"
#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "crypto/hash.h"
#include "qmp/schema/types.h"

#define VERSION_KEY "spindle-convert"
#define STATE_VERSION 1
#define STATE_MAX (1 << 20)
#define SAMPLE 4096
#define SAMPLES 64
#define PAUSE_NS 100000000ull /* between two notes at least, and ten times as long as the last one took */
#define PAUSE_SHARE 10

char *resume_default_path(const char *target)
{
    return xasprintf("%s.resume", target);
}

/* What must stay the same ------------------------------------------------------------------------------------------ */

/* Every regular file that a source consists of. */
static void describe_files(const struct node *node, struct json *list)
{
    const struct edge *edge;
    struct stat st;
    list_for_each (edge, &node->children, parent_link)
        describe_files(edge->child, list);
    if (!list_empty(&node->children) || !node->filename || stat(node->filename, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    struct json *file = json_new_object();
    json_set(file, "size", json_new_int(st.st_size));
    json_set(file, "modified-ns", json_new_int((int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec));
    json_append(list, file);
}

/* The i-th of `count` blocks that are spread over `size` bytes, the first and the last one among them. */
static uint64_t sample_offset(uint64_t size, unsigned i, unsigned count)
{
    uint64_t last = (size - 1) / SAMPLE;
    return count > 1 ? last / (count - 1) * i * SAMPLE + last % (count - 1) * i / (count - 1) * SAMPLE : 0;
}

static unsigned sample_count(uint64_t size)
{
    return (unsigned)MIN(DIV_ROUND_UP(size, (uint64_t)SAMPLE), (uint64_t)SAMPLES);
}

static char *to_hex(const uint8_t *bytes, size_t count)
{
    char *text = xcalloc(1, 2 * count + 1);
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

/* Digest of the samples of one source; a block that cannot be read counts as zeroes, for it may be salvaged. */
static struct json *describe_content(struct edge *edge, struct error *err)
{
    uint64_t size = edge->child->size;
    unsigned count = sample_count(size);
    auto_free uint8_t *buffer = xcalloc(SAMPLES, SAMPLE);
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = sample_offset(size, i, count);
        if (block_read_buffer(edge, offset, buffer + (size_t)i * SAMPLE, MIN(size - offset, (uint64_t)SAMPLE)) < 0)
            memset(buffer + (size_t)i * SAMPLE, 0, SAMPLE);
    }
    uint8_t digest[CRYPTO_HASH_MAX_SIZE];
    if (!crypto_hash_digest(CRYPTO_HASH_SHA256, buffer, (size_t)count * SAMPLE, digest, err))
        return NULL;
    auto_free char *text = to_hex(digest, crypto_hash_size(CRYPTO_HASH_SHA256));
    return json_new_string(text);
}

static bool describe_sources(struct conversion *all, struct json *identity, struct error *err)
{
    struct json *list = json_new_array();
    json_set(identity, "sources", list);
    const struct source *source;
    vec_for_each (source, &all->sources) {
        struct json *entry = json_new_object(), *files = json_new_array();
        json_append(list, entry);
        json_set(entry, "size", json_new_uint(source->edge->child->size));
        json_set(entry, "files", files);
        describe_files(source->edge->child, files);
        struct json *content = describe_content(source->edge, err);
        if (!content)
            return false;
        json_set(entry, "content", content);
    }
    return true;
}

/* The state file --------------------------------------------------------------------------------------------------- */

struct file_work {
    const char *path;
    char *text;
    size_t length;
    int error;
};

static void read_file(void *arg)
{
    struct file_work *work = arg;
    auto_close int fd = open(work->path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    work->error = fd < 0 || fstat(fd, &st) < 0 ? errno : S_ISREG(st.st_mode) && st.st_size <= STATE_MAX ? 0 : EINVAL;
    if (work->error)
        return;
    work->text = xcalloc(1, STATE_MAX + 1);
    for (ssize_t got; (got = read(fd, work->text + work->length, STATE_MAX - work->length)) > 0;)
        work->length += (size_t)got;
}

static int write_and_sync(const char *path, const char *text, size_t length)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno;
    for (ssize_t done; length; text += done, length -= (size_t)done) {
        done = write(fd, text, length);
        if (done < 0)
            return errno;
    }
    return fsync(fd) < 0 ? errno : 0;
}

/* The name of a file is on stable storage when its directory is. */
static int sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    auto_free char *directory = slash ? xstrndup(path, (size_t)(slash - path) + 1) : xstrdup(".");
    auto_close int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? errno : 0;
}

static void replace_file(void *arg)
{
    struct file_work *work = arg;
    auto_free char *new_path = xasprintf("%s.new", work->path);
    work->error = write_and_sync(new_path, work->text, work->length);
    if (!work->error && rename(new_path, work->path) < 0)
        work->error = errno;
    if (work->error)
        unlink(new_path);
    else
        work->error = sync_directory(work->path);
}

/* NULL and no error: there is none. */
static struct json *load(const char *path, struct error *err)
{
    struct file_work work = {.path = path};
    co_offload(read_file, &work);
    auto_free char *text = work.text;
    if (work.error == ENOENT)
        return NULL;
    if (work.error)
        return fail_errno_null(err, work.error, "Could not read '%s'", path);
    auto_json *state = json_parse(text, work.length, err);
    int64_t version;
    if (!state)
        fail_prefix(err, "'%s' is not the state of a conversion: ", path);
    else if (!json_int64(json_get(state, VERSION_KEY), &version) || version != STATE_VERSION)
        fail(err, EINVAL, "'%s' is not the state of a conversion that this version knows", path);
    else
        return TAKE(state);
    return NULL;
}

static uint64_t inode_of(struct edge *edge)
{
    const struct node *node = edge->child;
    while (node->file)
        node = node->file->child;
    return node->host_inode;
}

static bool save(struct resume *resume, uint64_t done, struct error *err)
{
    struct conversion *all = resume->all;
    auto_json *state = json_new_object();
    json_set(state, VERSION_KEY, json_new_int(STATE_VERSION));
    json_set(state, "done", json_new_uint(done));
    json_set(state, "target-size", json_new_uint(all->target->child->size));
    json_set(state, "target-inode", json_new_uint(inode_of(all->target)));
    for (struct json_member m = json_first(resume->identity); m.key; m = json_next(m))
        json_set(state, m.key, json_clone(m.value));
    auto_free char *text = json_to_pretty_text(state);
    struct file_work work = {.path = resume->path, .text = text, .length = strlen(text)};
    co_offload(replace_file, &work);
    if (work.error)
        return fail_errno(err, work.error, "Could not write '%s'", resume->path);
    resume->done = done;
    return true;
}

/* Going on --------------------------------------------------------------------------------------------------------- */

/* Names what differs, so that the user knows what was changed. */
static bool same_options(const struct json *was, const struct json *is, struct error *err)
{
    for (struct json_member m = json_first(is); m.key; m = json_next(m)) {
        const struct json *before = json_get(was, m.key);
        if (before && json_equal(before, m.value))
            continue;
        auto_free char *old_text = before ? json_to_text(before) : xstrdup("nothing"),
                       *new_text = json_to_text(m.value);
        return fail(err, EINVAL, "it began with other options: '%s' was %s, and is %s", m.key, old_text, new_text);
    }
    return true;
}

static bool same_sources(const struct conversion *all, const struct json *was, const struct json *is, struct error *err)
{
    if (json_length(was) != json_length(is))
        return fail(err, EINVAL, "it began with %zu sources, not %zu", json_length(was), json_length(is));
    for (size_t i = 0; i < json_length(is); i++) {
        if (!json_equal(json_at(was, i), json_at(is, i)))
            return fail(err, ESTALE, "'%s' has changed since", all->sources.items[i].name);
    }
    return true;
}

static bool fits(const struct resume *resume, struct error *err)
{
    return same_options(json_get(resume->found, "options"), json_get(resume->identity, "options"), err) &&
           same_sources(resume->all, json_get(resume->found, "sources"), json_get(resume->identity, "sources"), err);
}

static bool cannot_go_on(const struct resume *resume, struct error *err)
{
    fail_prefix(err, "The conversion cannot go on: ");
    return fail_hint(err, "Remove '%s' to begin anew.", resume->path);
}

bool resume_begin(struct resume *resume, struct conversion *all, const char *path, struct json *options,
                  struct error *err)
{
    resume->all = all;
    resume->path = xstrdup(path);
    resume->identity = json_new_object();
    json_set(resume->identity, "options", options);
    if (!describe_sources(all, resume->identity, err))
        return false;
    resume->found = load(path, err);
    if (error_is_set(err))
        return cannot_go_on(resume, err);
    return !resume->found || fits(resume, err) || cannot_go_on(resume, err);
}

/* Gives back what was allocated and not linked. What is worse than that cannot come from an interruption. */
static bool check_metadata(struct node *node, struct error *err)
{
    struct image_check check = {.filename = node->filename, .format = (char *)node->driver->name};
    if (!node->driver->check)
        return true;
    node_drain_begin(node);
    int result = node->driver->check(node, CHECK_REPAIR_LEAKS, &check, err);
    node_drain_end(node);
    if (result < 0)
        return fail_errno(err, -result, "its target could not be checked");
    return (!check.corruptions && !check.check_errors) || fail(err, EIO, "its target is corrupt");
}

/* Some blocks of what is said to be done. */
static bool compare_samples(struct conversion *all, uint64_t done, struct error *err)
{
    unsigned count = done ? sample_count(done) : 0;
    uint8_t wanted[SAMPLE], found[SAMPLE];
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = sample_offset(done, i, count), length = MIN(done - offset, (uint64_t)SAMPLE);
        if (!conversion_peek(all, offset, wanted, length))
            continue; /* a broken sector of a source */
        int result = block_read_buffer(all->target, offset, found, length);
        if (result < 0)
            return fail_errno(err, -result, "Could not read '%s' at byte %" PRIu64, all->target_name, offset);
        if (memcmp(wanted, found, length))
            return fail(err, ESTALE, "'%s' is not what was left: it has other content at byte %" PRIu64,
                        all->target_name, offset);
    }
    return true;
}

static bool target_is_ours(struct resume *resume, struct error *err)
{
    struct conversion *all = resume->all;
    uint64_t size, inode, granularity = conversion_granularity(all);
    if (!json_uint64(json_get(resume->found, "done"), &resume->done) || resume->done > all->size ||
        (resume->done % granularity && resume->done != all->size) ||
        !json_uint64(json_get(resume->found, "target-size"), &size) ||
        !json_uint64(json_get(resume->found, "target-inode"), &inode))
        return fail(err, EINVAL, "'%s' is damaged", resume->path);
    if (size != all->target->child->size || inode != inode_of(all->target))
        return fail(err, ESTALE, "'%s' is not the file that was left", all->target_name);
    return check_metadata(all->target->child, err) && compare_samples(all, resume->done, err);
}

bool resume_open_target(struct resume *resume, struct error *err)
{
    struct conversion *all = resume->all;
    if (resume->found) {
        if (!target_is_ours(resume, err))
            return cannot_go_on(resume, err);
        all->next = all->done = resume->done;
        all->target_is_zero = false;
        return true;
    }
    int result = block_flush(all->target);
    if (result < 0)
        return fail_errno(err, -result, "Could not flush '%s'", all->target_name);
    return save(resume, 0, err);
}

bool resume_clear_bitmaps(struct resume *resume, struct error *err)
{
    struct node *source = resume->all->sources.items[0].edge->child, *target = resume->all->target->child;
    const struct dirty_bitmap *from;
    list_for_each (from, &source->bitmaps, link) {
        struct dirty_bitmap *old = resume->found ? dirty_bitmap_find(target, from->name) : NULL;
        if (old && !target->driver->bitmaps->remove(target, old, err))
            return false;
        if (old)
            dirty_bitmap_free(old);
    }
    return true;
}

/* While it runs ---------------------------------------------------------------------------------------------------- */

static void note_progress(struct resume *resume)
{
    struct conversion *all = resume->all;
    auto_error err = {0};
    uint64_t done = conversion_stored(all);
    if (done == resume->done)
        return;
    int result = block_flush(all->target);
    if (result < 0 && !all->failed)
        fail_errno(&err, -result, "Could not flush '%s'", all->target_name);
    if (result < 0 || save(resume, done, &err) || resume->warned)
        return;
    resume->warned = true;
    log_warning("%s; a conversion that is interrupted now will go on at byte %" PRIu64, err.message, resume->done);
}

static void watcher(void *arg)
{
    struct resume *resume = arg;
    struct loop *loop = resume->all->loop;
    uint64_t pause = PAUSE_NS;
    while (!resume->ending) {
        co_queue_wait_ns(&resume->changed, pause);
        if (resume->ending)
            break;
        uint64_t start = loop_now_ns(loop);
        note_progress(resume);
        pause = MAX(PAUSE_NS, (loop_now_ns(loop) - start) * PAUSE_SHARE);
    }
}

/* The first signal ends the conversion in order; a second one kills it, which is no harm either. */
static void on_signal(void *arg, uint32_t events)
{
    struct resume *resume = arg;
    struct signalfd_siginfo info;
    sigset_t set;
    if (read(resume->signal_fd, &info, sizeof info) != sizeof info)
        return;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    conversion_stop(resume->all);
}

static void watch_signals(struct resume *resume)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    resume->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (resume->signal_fd >= 0)
        loop_watch(resume->all->loop, &resume->watch, resume->signal_fd, EPOLLIN, on_signal, resume);
}

void resume_watch(struct resume *resume)
{
    co_group_init(&resume->group);
    co_queue_init(&resume->changed);
    watch_signals(resume);
    co_spawn(resume->all->loop, &resume->group, watcher, resume);
}

void resume_stop_watching(struct resume *resume)
{
    resume->ending = true;
    co_queue_wake_all(&resume->changed);
    co_group_wait(&resume->group);
    if (resume->signal_fd >= 0) {
        loop_unwatch(&resume->watch);
        close(resume->signal_fd);
    }
    note_progress(resume);
    if (resume->all->stopped)
        log_error("interrupted at byte %" PRIu64 " of %" PRIu64 "; the same command goes on there", resume->done,
                  resume->all->size);
}

void resume_finish(struct resume *resume)
{
    if (resume->path && unlink(resume->path) < 0 && errno != ENOENT)
        log_warning("'%s' could not be removed: %s", resume->path, strerror(errno));
}

void resume_release(struct resume *resume)
{
    free(resume->path);
    json_free(resume->identity);
    json_free(resume->found);
}

void resume_forget(const char *target)
{
    auto_free char *path = resume_default_path(target);
    auto_json *state = access(path, F_OK) == 0 ? load(path, NULL) : NULL;
    if (state && unlink(path) < 0)
        log_warning("'%s', the state of an earlier conversion, could not be removed: %s", path, strerror(errno));
}
