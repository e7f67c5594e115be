/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the metrics are. Families are written one after the other, each with all of its samples, as the format wants it
 * (https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4). Times are seconds, sizes bytes; names
 * and labels are an interface, and are kept.
 *
 * Counters of nodes are those of query-blockstats: requests that parents made of a node, so that a file's are those of
 * the format above it. Latencies are those of requests from outside of the graph (exports, jobs), in bins of powers of
 * two.
 *
 * All of it is read at the home of the graph, without a lock: lists and counters change there only, also when exports
 * serve their clients in threads of their own, and what exports say of their clients may be asked there (export.h).
 */
#include "storage-daemon/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/loop.h"
#include "base/strbuf.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/job.h"
#include "block/latency.h"
#include "qmp/schema/utf8.h"
#include "storage-daemon/daemon.h"

#define SECOND 1e9

/* The format ------------------------------------------------------------------------------------------------------- */

static void family(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The value of a label: what is no UTF-8 becomes '?'. */
static void append_escaped(struct strbuf *out, const char *text)
{
    struct utf8_state state = {0};
    const char *character = text;
    for (; *text; text++) {
        bool good = utf8_feed(&state, (uint8_t)*text);
        if (good && state.missing)
            continue;
        if (!good)
            strbuf_append_char(out, '?');
        else if (*character == '\n')
            strbuf_append(out, "\\n");
        else if (*character == '"' || *character == '\\')
            strbuf_printf(out, "\\%c", *character);
        else
            strbuf_append_bytes(out, character, (size_t)(text + 1 - character));
        state = (struct utf8_state){0};
        character = text + 1;
    }
    if (state.missing)
        strbuf_append_char(out, '?');
}

struct label {
    const char *name, *value;
};

/* name{a="b",...}, without the value. The list ends with a label without a name. */
static void begin_sample(struct strbuf *out, const char *name, const struct label *labels)
{
    strbuf_append(out, name);
    for (const struct label *label = labels; label && label->name; label++) {
        strbuf_printf(out, "%s%s=\"", label == labels ? "{" : ",", label->name);
        append_escaped(out, label->value);
        strbuf_append_char(out, '"');
    }
    strbuf_append(out, labels && labels->name ? "} " : " ");
}
#define LABELS(...) ((const struct label[]){__VA_ARGS__, {NULL, NULL}})

static void sample(struct strbuf *out, const char *name, const struct label *labels, uint64_t value)
{
    begin_sample(out, name, labels);
    strbuf_printf(out, "%" PRIu64 "\n", value);
}

static void sample_seconds(struct strbuf *out, const char *name, const struct label *labels, uint64_t ns)
{
    begin_sample(out, name, labels);
    strbuf_printf(out, "%.9f\n", (double)ns / SECOND);
}

/* Nodes ------------------------------------------------------------------------------------------------------------ */

struct node_counter {
    const char *operation;
    size_t offset; /* in struct block_stats */
};
#define COUNTER(operation, field)                                                                                      \
    {                                                                                                                  \
        operation, offsetof(struct block_stats, field)                                                                 \
    }

static const struct node_family {
    const char *name, *help;
    struct node_counter counters[6];
} node_families[] = {
    {"spindle_node_operations_total",
     "Requests that a node has carried out.",
     {COUNTER("read", read_operations), COUNTER("write", write_operations), COUNTER("discard", discard_operations),
      COUNTER("flush", flush_operations), COUNTER("zero", zero_operations)}},
    {"spindle_node_bytes_total",
     "Bytes of these requests.",
     {COUNTER("read", read_bytes), COUNTER("write", write_bytes), COUNTER("discard", discard_bytes),
      COUNTER("zero", zero_bytes)}},
    {"spindle_node_errors_total",
     "Requests that failed.",
     {COUNTER("read", failed_reads), COUNTER("write", failed_writes), COUNTER("discard", failed_discards),
      COUNTER("flush", failed_flushes)}},
    {"spindle_node_refused_total",
     "Requests that were refused: outside of the disk, or not allowed. They are among the failed ones.",
     {COUNTER("read", invalid_reads), COUNTER("write", invalid_writes), COUNTER("discard", invalid_discards)}},
};

static void write_node_family(struct strbuf *out, const struct graph *graph, const struct node_family *f)
{
    family(out, f->name, "counter", f->help);
    for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
        for (const struct node_counter *c = f->counters; c->operation; c++) {
            uint64_t value;
            memcpy(&value, (const char *)&node->stats + c->offset, sizeof value);
            sample(out, f->name, LABELS({"node", node->name}, {"operation", c->operation}), value);
        }
    }
}

static uint64_t size_of(const struct node *node)
{
    return node->size;
}
static uint64_t in_flight_of(const struct node *node)
{
    return node->in_flight;
}
static uint64_t corrupt_of(const struct node *node)
{
    return node->corrupt;
}

static const struct {
    const char *name, *help;
    uint64_t (*value)(const struct node *node);
} node_gauges[] = {
    {"spindle_node_size_bytes", "Size of the node as its users see it.", size_of},
    {"spindle_node_requests_in_flight", "Requests that the node is at.", in_flight_of},
    {"spindle_node_corrupt", "1: a corruption was found, and writes are refused.", corrupt_of},
};

static void write_nodes(struct strbuf *out, const struct graph *graph)
{
    family(out, "spindle_node_info", "gauge", "The nodes of the block graph.");
    for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node))
        sample(out, "spindle_node_info", LABELS({"node", node->name}, {"driver", node->driver->name}), 1);
    for (size_t i = 0; i < ARRAY_SIZE(node_families); i++)
        write_node_family(out, graph, &node_families[i]);
    for (size_t i = 0; i < ARRAY_SIZE(node_gauges); i++) {
        family(out, node_gauges[i].name, "gauge", node_gauges[i].help);
        for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node))
            sample(out, node_gauges[i].name, LABELS({"node", node->name}), node_gauges[i].value(node));
    }
}

/* Latencies: of nodes that have been asked from outside. */

static void write_histogram(struct strbuf *out, const struct node *node, enum latency_kind kind)
{
    static const char *const names[] = {"read", "write", "flush", "discard"};
    const uint64_t *bins = node->stats.latencies[kind];
    uint64_t count = 0;
    for (unsigned i = 0; i < LATENCY_BINS; i++) {
        char bound[32];
        count += bins[i];
        if (i + 1 < LATENCY_BINS)
            snprintf(bound, sizeof bound, "%.9g", (double)latency_bin_end(i) / SECOND);
        else
            snprintf(bound, sizeof bound, "+Inf");
        sample(out, "spindle_node_latency_seconds_bucket",
               LABELS({"node", node->name}, {"operation", names[kind]}, {"le", bound}), count);
    }
    const uint64_t sums[] = {node->stats.read_ns, node->stats.write_ns, node->stats.flush_ns, node->stats.discard_ns};
    const struct label *labels = LABELS({"node", node->name}, {"operation", names[kind]});
    sample_seconds(out, "spindle_node_latency_seconds_sum", labels, sums[kind]);
    sample(out, "spindle_node_latency_seconds_count", labels, count);
}

static void write_latencies(struct strbuf *out, const struct graph *graph)
{
    family(out, "spindle_node_latency_seconds", "histogram",
           "Time that requests from outside of the graph took, failed ones included.");
    for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
        for (unsigned kind = 0; kind < LATENCY_KINDS && node->stats.last_ns; kind++)
            write_histogram(out, node, kind);
    }
}

/* Caches of metadata. */

static void write_caches(struct strbuf *out, const struct graph *graph)
{
    static const struct {
        const char *name, *type, *help;
        size_t offset;
    } families[] = {
        {"spindle_node_cache_hits_total", "counter", "Lookups of metadata that was in memory.",
         offsetof(struct cache_numbers, hits)},
        {"spindle_node_cache_misses_total", "counter", "Metadata that had to be read.",
         offsetof(struct cache_numbers, misses)},
        {"spindle_node_cache_bytes", "gauge", "Memory that the cache has taken so far.",
         offsetof(struct cache_numbers, bytes)},
        {"spindle_node_cache_limit_bytes", "gauge", "Memory that it may take.", offsetof(struct cache_numbers, limit)},
        {"spindle_node_cache_dirty_bytes", "gauge", "Metadata in memory that is not written yet.",
         offsetof(struct cache_numbers, dirty)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        family(out, families[i].name, families[i].type, families[i].help);
        for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
            struct cache_numbers caches[CACHES_MAX];
            unsigned count = node->driver->caches ? node->driver->caches(node, caches) : 0;
            for (unsigned c = 0; c < count; c++) {
                uint64_t value;
                memcpy(&value, (const char *)&caches[c] + families[i].offset, sizeof value);
                sample(out, families[i].name, LABELS({"node", node->name}, {"cache", caches[c].name}), value);
            }
        }
    }
}

/* Dirty bitmaps: those that have a name, which jobs' have not. */

static uint64_t dirty_bytes(const struct dirty_bitmap *bitmap)
{
    return dirty_bitmap_count(bitmap);
}
static uint64_t granularity_of(const struct dirty_bitmap *bitmap)
{
    return bitmap->granularity;
}
static uint64_t recording_of(const struct dirty_bitmap *bitmap)
{
    return bitmap->recording;
}

static void write_bitmaps(struct strbuf *out, const struct graph *graph)
{
    static const struct {
        const char *name, *help;
        uint64_t (*value)(const struct dirty_bitmap *bitmap);
    } gauges[] = {
        {"spindle_bitmap_dirty_bytes", "What is marked in a dirty bitmap.", dirty_bytes},
        {"spindle_bitmap_granularity_bytes", "What a bit stands for.", granularity_of},
        {"spindle_bitmap_recording", "1: writes are marked.", recording_of},
    };
    for (size_t i = 0; i < ARRAY_SIZE(gauges); i++) {
        family(out, gauges[i].name, "gauge", gauges[i].help);
        for (const struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
            const struct dirty_bitmap *bitmap;
            list_for_each (bitmap, &node->bitmaps, link) {
                if (bitmap->name)
                    sample(out, gauges[i].name, LABELS({"node", node->name}, {"bitmap", bitmap->name}),
                           gauges[i].value(bitmap));
            }
        }
    }
}

/* Exports ---------------------------------------------------------------------------------------------------------- */

static uint64_t clients_of(const struct block_export *export)
{
    if (export->opening)
        return 0;
    if (export->driver->clients)
        return export->driver->clients(export);
    return export->driver->in_use && export->driver->in_use(export);
}

static void write_exports(struct strbuf *out, const struct export_set *exports)
{
    static const char bytes[] = "spindle_export_bytes_total", clients[] = "spindle_export_clients";
    family(out, "spindle_export_info", "gauge", "The exports.");
    for (const struct block_export *e = export_next(exports, NULL); e; e = export_next(exports, e))
        sample(out, "spindle_export_info",
               LABELS({"export", e->id}, {"type", block_export_type_name(e->driver->type)},
                      {"node", e->edge->child->name}, {"writable", e->writable ? "true" : "false"}),
               1);
    family(out, clients, "gauge", "Clients of an export: connections, or open files.");
    for (const struct block_export *e = export_next(exports, NULL); e; e = export_next(exports, e))
        sample(out, clients, LABELS({"export", e->id}), clients_of(e));
    family(out, bytes, "counter", "Bytes that clients of an export have read and written.");
    for (const struct block_export *e = export_next(exports, NULL); e; e = export_next(exports, e)) {
        sample(out, bytes, LABELS({"export", e->id}, {"operation", "read"}), e->edge->read_bytes);
        sample(out, bytes, LABELS({"export", e->id}, {"operation", "write"}), e->edge->write_bytes);
    }
}

/* Jobs ------------------------------------------------------------------------------------------------------------- */

static uint64_t progress_of(const struct job *job)
{
    return job->progress;
}
static uint64_t total_of(const struct job *job)
{
    return job->total;
}
static uint64_t speed_of(const struct job *job)
{
    return job->speed;
}

static void write_jobs(struct strbuf *out, const struct job_set *jobs)
{
    static const struct {
        const char *name, *help;
        uint64_t (*value)(const struct job *job);
    } gauges[] = {
        {"spindle_job_progress", "How far a job is, in the unit of spindle_job_end.", progress_of},
        {"spindle_job_end", "Where it will end; may grow.", total_of},
        {"spindle_job_speed_limit", "Bytes a second that a job may work at; 0: any number.", speed_of},
    };
    family(out, "spindle_job_info", "gauge", "The jobs, with their states.");
    for (const struct job *job = job_next(jobs, NULL); job; job = job_next(jobs, job))
        sample(out, "spindle_job_info",
               LABELS({"job", job->id}, {"type", job_type_name(job->driver->type)},
                      {"status", job_status_name(job->status)}),
               1);
    for (size_t i = 0; i < ARRAY_SIZE(gauges); i++) {
        family(out, gauges[i].name, "gauge", gauges[i].help);
        for (const struct job *job = job_next(jobs, NULL); job; job = job_next(jobs, job))
            sample(out, gauges[i].name, LABELS({"job", job->id}), gauges[i].value(job));
    }
}

/* The process ------------------------------------------------------------------------------------------------------ */

static bool read_memory(uint64_t *total, uint64_t *resident)
{
    FILE *file = fopen("/proc/self/statm", "re");
    bool good = file && fscanf(file, "%" SCNu64 " %" SCNu64, total, resident) == 2;
    if (file)
        fclose(file);
    *total *= (uint64_t)sysconf(_SC_PAGESIZE);
    *resident *= (uint64_t)sysconf(_SC_PAGESIZE);
    return good;
}

static void write_number(struct strbuf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    family(out, name, type, help);
    sample(out, name, NULL, value);
}

static void write_process(struct strbuf *out, const struct daemon *daemon)
{
    struct rusage usage;
    uint64_t total = 0, resident = 0;
    getrusage(RUSAGE_SELF, &usage);
    uint64_t cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
                      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
    family(out, "process_cpu_seconds_total", "counter", "Processor time of the daemon.");
    sample_seconds(out, "process_cpu_seconds_total", NULL, cpu_ns);
    family(out, "process_start_time_seconds", "gauge", "When the daemon began, in seconds since 1970.");
    sample_seconds(out, "process_start_time_seconds", NULL, daemon->started_ns);
    if (read_memory(&total, &resident)) {
        write_number(out, "process_resident_memory_bytes", "gauge", "Memory of the daemon.", resident);
        write_number(out, "process_virtual_memory_bytes", "gauge", "Address space of the daemon.", total);
    }
    struct loop_stats stats = loop_stats(daemon->loop);
    write_number(out, "spindle_loop_turns_total", "counter", "Turns of the event loop.", stats.turns);
    write_number(out, "spindle_loop_system_calls_total", "counter", "System calls that submit or wait.",
                 stats.system_calls);
    write_number(out, "spindle_loop_operations_total", "counter", "I/O operations given to the kernel.",
                 stats.operations);
    write_number(out, "spindle_loop_switches_total", "counter", "Switches of coroutines.", stats.switches);
}

void metrics_write(struct daemon *daemon, struct strbuf *out)
{
    family(out, "spindle_build_info", "gauge", "The program.");
    sample(out, "spindle_build_info", LABELS({"version", SPINDLE_VERSION}), 1);
    write_nodes(out, daemon->graph);
    write_latencies(out, daemon->graph);
    write_caches(out, daemon->graph);
    write_bitmaps(out, daemon->graph);
    write_exports(out, daemon->exports);
    write_jobs(out, daemon->jobs);
    write_process(out, daemon);
}
