/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: parses one image for its owner, behind the highest walls there are.
 *
 * It has three descriptors (the image, open for reading; the socket; the shared buffer), an address space and processor
 * time with limits, no capability, name spaces of its own where the kernel grants them, and a filter that leaves it
 * reading, answering and memory. It cannot open, connect, fork, execute, trace or signal.
 *
 * Inside runs a format driver like in any other program, over the file driver below. Its loop is the simulated one:
 * here nobody waits for anything but the next question, so coroutines and work for other threads run right away, in
 * this one thread, without a system call.
 */
#include "confined/worker.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/math.h"
#include "block/name.h"
#include "block/request.h"
#include "confined/protocol.h"
#include "confined/validate.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"
#include "walls/walls.h"

struct worker {
    struct loop *loop;
    struct graph *graph;
    struct node *node;
    struct edge *edge;
    uint8_t *buffer;
    uint64_t file_size;
    struct confined_question question;
    struct confined_answer answer;
};

/* The file ------------------------------------------------------------------------------------------------------- */

/* The name `file` is what format drivers ask for. There is one, whatever it is called. */
static bool image_open(struct node *node, struct error *err)
{
    const char *name = node->options->u.file.filename;
    if (strcmp(name, "image"))
        return fail(err, EACCES, "the image wants another file, '%s'; a confined image is one file", name);
    off_t size = lseek(CONFINED_IMAGE_FD, 0, SEEK_END);
    if (size < 0)
        return fail_errno(err, errno, "cannot tell the size of the image");
    node->size = (uint64_t)size;
    node->read_only = true;
    return true;
}

static int image_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    auto_free struct iovec *iov = new_array(struct iovec, to.count);
    int count = (int)iov_slice(iov, to.iov, (int)to.count, to.skip, length);
    struct iovec *at = iov;
    while (count) {
        ssize_t got = preadv(CONFINED_IMAGE_FD, at, MIN(count, 1024), (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got)
            return -EIO; /* shorter than it was */
        offset += (uint64_t)got;
        for (; count && (size_t)got >= at->iov_len; at++, count--)
            got -= (ssize_t)at->iov_len;
        if (count) {
            at->iov_base = (char *)at->iov_base + got;
            at->iov_len -= (size_t)got;
        }
    }
    return 0;
}

static const struct block_driver image_driver = {
    .name = "file",
    .kind = DRIVER_PROTOCOL,
    .open = image_open,
    .read = image_read,
};
static const struct block_driver *const image_drivers[] = {&image_driver, NULL};

/* Answers -------------------------------------------------------------------------------------------------------- */

static void refuse(struct worker *worker, int code, const char *message)
{
    struct confined_answer *answer = &worker->answer;
    memset(&answer->u, 0, sizeof answer->u);
    answer->count = 0;
    answer->result = code ? -abs(code) : -EINVAL;
    static const char prefix[] = "Could not open 'image': "; /* our owner knows its real name */
    if (message && !strncmp(message, prefix, strlen(prefix)))
        message += strlen(prefix);
    if (message)
        strncpy(answer->u.message, message, sizeof answer->u.message - 1);
    for (char *c = answer->u.message; *c; c++)
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    /* Names out of the image may stand in it. */
    if (!confined_validate_text(answer->u.message, sizeof answer->u.message))
        strcpy(answer->u.message, "the reason holds what is not text");
}

static bool put(char *to, size_t size, const char *text)
{
    if (!text)
        return true;
    if (strlen(text) >= size || !confined_validate_text(text, strlen(text) + 1))
        return false;
    strcpy(to, text);
    return true;
}

static void free_facts(struct image_facts *facts)
{
    free(facts->backing_filename);
    free(facts->full_backing_filename);
    free(facts->backing_format);
    image_info_specific_free(facts->specific);
}

static bool fill_facts(struct worker *worker, const struct image_facts *facts)
{
    const struct block_driver *driver = worker->node->driver;
    struct confined_facts *out = &worker->answer.u.facts;
    out->size = worker->node->size;
    out->cluster_size = facts->cluster_size;
    out->flags = (facts->has_dirty_flag ? CONFINED_HAS_DIRTY_FLAG : 0) | (facts->dirty_flag ? CONFINED_DIRTY : 0) |
                 (facts->compressed ? CONFINED_COMPRESSED : 0) | (facts->encrypted ? CONFINED_ENCRYPTED : 0) |
                 (driver->check ? CONFINED_CAN_CHECK : 0) |
                 (facts->backing_filename && *facts->backing_filename ? CONFINED_HAS_BACKING : 0);
    return put(out->format, sizeof out->format, driver->name) &&
           put(out->backing_name, sizeof out->backing_name, facts->backing_filename) &&
           put(out->backing_format, sizeof out->backing_format, facts->backing_format);
}

static void answer_open(struct worker *worker)
{
    auto_error err = {0};
    const struct confined_question *question = &worker->question;
    struct open_mode mode = {
        .read_only = true, .no_backing = true, .metadata_only = question->flags & CONFINED_METADATA_ONLY};
    char format[CONFINED_FORMAT_SIZE + 1] = {0};
    memcpy(format, question->format, CONFINED_FORMAT_SIZE);
    worker->node = node_open_filename(worker->graph, "image", format[0] ? format : NULL, &mode, &err);
    if (worker->node)
        worker->edge = edge_attach(NULL, "worker", worker->node, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, &err);
    struct image_facts facts = {0};
    if (!worker->edge || (worker->node->driver->info && !worker->node->driver->info(worker->node, &facts, &err)))
        refuse(worker, err.code, err.message);
    else if (!fill_facts(worker, &facts))
        refuse(worker, EINVAL, "the name of its backing file, or of that one's format, is not text");
    free_facts(&facts);
}

static bool is_inside(const struct worker *worker, const struct confined_question *question)
{
    return worker->edge && question->length && span_fits(question->offset, question->length, worker->node->size);
}

static int map_one(struct worker *worker, uint64_t offset, uint64_t length, struct confined_extent *out)
{
    struct node *node = worker->node;
    struct extent extent = {.kind = EXTENT_DATA, .length = length, .child_offset = offset, .allocated = true};
    int result = node->driver->map ? node->driver->map(node, offset, length, &extent) : -ENOTSUP;
    if (result < 0)
        return result;
    bool placed = extent.child && (extent.kind == EXTENT_DATA || extent.kind == EXTENT_ZERO);
    if (!extent.length || extent.length > length || (extent.kind == EXTENT_DATA && !placed) ||
        (placed && !span_fits(extent.child_offset, extent.length, worker->file_size + CONFINED_SLACK)))
        return -EIO; /* the image says so; our owner would take it for our lie */
    bool follow = extent.follow && extent.kind == EXTENT_DATA;
    *out = (struct confined_extent){
        .length = extent.length,
        .host_offset = placed ? extent.child_offset : 0,
        .kind = extent.kind,
        .flags = (extent.allocated && extent.kind != EXTENT_BACKING ? CONFINED_ALLOCATED : 0) |
                 (follow ? CONFINED_FOLLOW : 0) | (placed ? CONFINED_PLACED : 0),
    };
    return 0;
}

/* As many extents as fit, also beyond what was asked: most readers go on. */
static void answer_map(struct worker *worker)
{
    struct confined_answer *answer = &worker->answer;
    uint64_t offset = worker->question.offset;
    while (answer->count < CONFINED_EXTENTS && offset < worker->node->size) {
        struct confined_extent *extent = &answer->u.extents[answer->count];
        int result = map_one(worker, offset, worker->node->size - offset, extent);
        if (result < 0 && !answer->count)
            refuse(worker, result, NULL);
        if (result < 0)
            return; /* an error of the part behind is met when that part is asked for */
        offset += extent->length;
        answer->count++;
    }
}

static void answer_read(struct worker *worker)
{
    const struct confined_question *question = &worker->question;
    struct node *node = worker->node;
    uint64_t done = 0;
    struct iovec iov = {worker->buffer, question->length};
    if (question->length > CONFINED_BUFFER_SIZE || !node->driver->map || !node->driver->read_encoded) {
        refuse(worker, ENOTSUP, NULL);
        return;
    }
    while (done < question->length) {
        struct extent extent;
        int result = node->driver->map(node, question->offset + done, question->length - done, &extent);
        if (result >= 0 && extent.kind != EXTENT_ENCODED)
            result = -EINVAL;
        if (result >= 0)
            result = node->driver->read_encoded(node, question->offset + done, extent.length, &extent,
                                                buffers_skip(buffers_of(&iov, 1), done));
        if (result < 0) {
            refuse(worker, result, NULL);
            return;
        }
        done += extent.length;
    }
    worker->answer.count = (uint32_t)done;
}

static void answer_info(struct worker *worker)
{
    auto_error err = {0};
    struct image_facts facts = {0};
    if (worker->node->driver->info && !worker->node->driver->info(worker->node, &facts, &err)) {
        refuse(worker, err.code, err.message);
    } else if (facts.specific) {
        auto_json *json = image_info_specific_to_json(facts.specific);
        auto_free char *text = json_to_text(json);
        size_t length = strlen(text);
        if (length > CONFINED_BUFFER_SIZE) {
            refuse(worker, E2BIG, "what is special to the format is too long");
        } else {
            memcpy(worker->buffer, text, length);
            worker->answer.count = (uint32_t)length;
        }
    }
    free_facts(&facts);
}

static void answer_check(struct worker *worker)
{
    auto_error err = {0};
    struct node *node = worker->node;
    struct image_check check = {.filename = (char *)"image", .format = (char *)node->driver->name};
    int result = node->driver->check ? node->driver->check(node, 0, &check, &err) : -ENOTSUP;
    if (result < 0) {
        refuse(worker, result, err.message);
        return;
    }
    const int64_t counters[CONFINED_COUNTERS] = {
        [CONFINED_IMAGE_END] = check.image_end_offset,
        [CONFINED_TOTAL] = check.total_clusters,
        [CONFINED_CHECK_ERRORS] = check.check_errors,
        [CONFINED_ALLOCATED_CLUSTERS] = check.allocated_clusters,
        [CONFINED_FRAGMENTED] = check.fragmented_clusters,
        [CONFINED_COMPRESSED_CLUSTERS] = check.compressed_clusters,
        [CONFINED_LEAKS] = check.leaks,
        [CONFINED_CORRUPTIONS] = check.corruptions,
    };
    memcpy(worker->answer.u.counters, counters, sizeof counters);
}

static int answer(void *arg)
{
    struct worker *worker = arg;
    const struct confined_question *question = &worker->question;
    bool needs_span = question->op == CONFINED_MAP || question->op == CONFINED_READ;
    if ((question->op == CONFINED_OPEN) == !!worker->edge || (needs_span && !is_inside(worker, question))) {
        refuse(worker, EINVAL, NULL);
        return 0;
    }
    switch ((enum confined_op)question->op) {
    case CONFINED_OPEN: answer_open(worker); return 0;
    case CONFINED_MAP: answer_map(worker); return 0;
    case CONFINED_READ: answer_read(worker); return 0;
    case CONFINED_INFO: answer_info(worker); return 0;
    case CONFINED_CHECK: answer_check(worker); return 0;
    }
    refuse(worker, EINVAL, NULL);
    return 0;
}

/* Life ----------------------------------------------------------------------------------------------------------- */

static bool receive(struct worker *worker)
{
    ssize_t got;
    do {
        got = recv(CONFINED_SOCKET_FD, &worker->question, sizeof worker->question, 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof worker->question;
}

static bool serve(struct worker *worker)
{
    while (receive(worker)) {
        worker->answer = (struct confined_answer){.sequence = worker->question.sequence, .op = worker->question.op};
        loop_run_main(worker->loop, answer, worker);
        if (send(CONFINED_SOCKET_FD, &worker->answer, sizeof worker->answer, MSG_NOSIGNAL) < 0)
            return false;
    }
    return true;
}

/* Its own of everything that has name spaces; where that is not granted, the filter must do alone. */
static void leave_name_spaces(void)
{
    const int all = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS;
    if (unshare(all) < 0 && unshare(CLONE_NEWUSER | all) < 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of credentials takes it back */
}

static bool set_up(struct worker *worker, const struct block_driver *const *formats, struct error *err)
{
    const struct walls_options options = {.demanded = true};
    void *buffer = mmap(NULL, CONFINED_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, CONFINED_BUFFER_FD, 0);
    if (buffer == MAP_FAILED)
        return fail_errno(err, errno, "this is not started by hand");
    worker->buffer = buffer;
    close(CONFINED_BUFFER_FD);
    off_t size = lseek(CONFINED_IMAGE_FD, 0, SEEK_END);
    worker->file_size = size > 0 ? (uint64_t)size : 0;
    worker->loop = loop_new(LOOP_SIMULATED, 1, err);
    if (!worker->loop)
        return false;
    worker->graph = graph_new(worker->loop, image_drivers);
    graph_add_drivers(worker->graph, formats);
    leave_name_spaces();
    return walls_enter(WALLS_WORKER, &options, err);
}

bool confined_is_worker(int argc, char **argv)
{
    return argc == 2 && !strcmp(argv[1], CONFINED_WORKER_ARGUMENT);
}

/* Nothing is taken apart at the end: the process is all there is to free. */
int confined_worker_main(const struct block_driver *const *formats)
{
    auto_error err = {0};
    auto_free struct worker *worker = new (struct worker);
    log_set_program("confined-worker");
    if (!set_up(worker, formats, &err)) {
        log_error("%s", err.message);
        _exit(1);
    }
    _exit(serve(worker) ? 0 : 1);
}
