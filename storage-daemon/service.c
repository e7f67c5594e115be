/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon is made of, how it comes up, and the order in which it goes down: exports first, then nodes, monitors
 * last. */
#include "base/cleanup.h"
#include <stdlib.h>
#include <string.h>
#include "base/math.h"
#include "base/loop.h"
#include "base/stream.h"
#include "block/export.h"
#include "block/filters/table.h"
#include "block/job.h"
#include "block/node.h"
#include "crypto/objects.h"
#include "confined/doorman.h"
#include "formats/table.h"
#include "fuse-export/export.h"
#include "nbd/servers.h"
#include "protocol/table.h"
#include "qmp/schema/commands.h"
#include "qmp/schema/events.h"
#include "qmp/server.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/iothreads.h"
#include "storage-daemon/metrics.h"
#include "vhost-user/export.h"

static void on_image_corrupted(void *user, struct node *node, const char *message, uint64_t offset, uint64_t size,
                               bool fatal)
{
    struct daemon *daemon = user;
    if (!daemon->qmp)
        return;
    qmp_event_block_image_corrupted(qmp_server_events(daemon->qmp), "", node->name, message, offset != UINT64_MAX,
                                    (int64_t)offset, size != UINT64_MAX, (int64_t)size, fatal);
}

static void on_write_threshold(void *user, struct node *node, uint64_t threshold, uint64_t exceeded_by)
{
    struct daemon *daemon = user;
    if (daemon->qmp)
        qmp_event_block_write_threshold(qmp_server_events(daemon->qmp), node->name, exceeded_by, threshold);
}

/* Events speak of sectors of 512 bytes. */
static void sectors_of(uint64_t offset, uint64_t length, int64_t *first, int64_t *count)
{
    *first = (int64_t)(offset / 512);
    *count = (int64_t)(DIV_ROUND_UP(offset + length, 512)) - *first;
}

static void on_quorum_bad(void *user, const struct node *child, int operation, int result, uint64_t offset,
                          uint64_t length)
{
    struct daemon *daemon = user;
    int64_t first, count;
    sectors_of(offset, length, &first, &count);
    if (daemon->qmp)
        qmp_event_quorum_report_bad(qmp_server_events(daemon->qmp), (enum quorum_op_type)operation,
                                    result ? strerror(-result) : NULL, child->name, first, count);
}

static void on_quorum_failure(void *user, const struct node *quorum, uint64_t offset, uint64_t length)
{
    struct daemon *daemon = user;
    int64_t first, count;
    sectors_of(offset, length, &first, &count);
    if (daemon->qmp)
        qmp_event_quorum_failure(qmp_server_events(daemon->qmp), quorum->name, first, count);
}

static void on_export_deleted(void *user, const char *id)
{
    struct daemon *daemon = user;
    if (daemon->qmp)
        qmp_event_block_export_deleted(qmp_server_events(daemon->qmp), id);
}

void daemon_quit(void *app)
{
    struct daemon *daemon = app;
    daemon->quitting = true;
    co_queue_wake_all(&daemon->quit);
}

void daemon_open(struct daemon *daemon)
{
    const struct graph_events events = {
        .image_corrupted = on_image_corrupted,
        .write_threshold = on_write_threshold,
        .quorum_bad = on_quorum_bad,
        .quorum_failure = on_quorum_failure,
        .user = daemon,
    };
    daemon->started_ns = loop_wall_ns(daemon->loop);
    daemon->objects = object_set_new(daemon->loop);
    object_set_add_kinds(daemon->objects, daemon_object_kinds);
    object_set_add_kinds(daemon->objects, crypto_object_kinds);
    object_set_add_kinds(daemon->objects, filter_object_kinds);
    daemon->graph = graph_new(daemon->loop, protocol_table);
    graph_add_drivers(daemon->graph, formats_table);
    graph_add_drivers(daemon->graph, filters_table);
    if (daemon->doorman) /* none: a daemon that lives inside another program opens no images of strangers */
        graph_add_drivers(daemon->graph, doorman_drivers(daemon->doorman));
    graph_set_objects(daemon->graph, daemon->objects);
    graph_set_events(daemon->graph, &events);
    daemon->qmp = qmp_server_new(daemon->loop, daemon);
    qmp_server_limit_event(daemon->qmp, "QUORUM_REPORT_BAD", "node-name", 1000);
    qmp_server_limit_event(daemon->qmp, "QUORUM_FAILURE", NULL, 1000);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_bitmap);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_core);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_export);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_job);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_node);
    qmp_server_add_module(daemon->qmp, &qmp_module_block_stats);
    qmp_server_add_module(daemon->qmp, &qmp_module_fd);
    qmp_server_add_module(daemon->qmp, &qmp_module_job);
    qmp_server_add_module(daemon->qmp, &qmp_module_transaction);
    daemon->jobs = daemon_new_jobs(daemon);
    qmp_server_add_module(daemon->qmp, &qmp_module_qom);
    qmp_server_add_module(daemon->qmp, &qmp_module_chardev);
    qmp_server_set_services(daemon->qmp, &daemon_chardev_services);
    qmp_server_on_quit(daemon->qmp, daemon_quit);
    daemon->nbd_servers = nbd_servers_new(daemon->loop, daemon->objects);
    daemon->export_types[0] = (struct export_type){&nbd_export_driver, daemon->nbd_servers};
    daemon->export_types[1] = (struct export_type){&vhost_user_blk_export_driver, NULL};
    daemon->export_types[2] = (struct export_type){&fuse_export_driver, daemon->doorman};
    daemon->exports = export_set_new(daemon->graph, daemon->export_types, on_export_deleted, daemon);
    daemon->iothreads = iothreads_new(daemon->objects);
    const struct export_iothreads iothreads = iothreads_for_exports(daemon->iothreads);
    export_set_offer_iothreads(daemon->exports, &iothreads);
}

/* Nodes made by the monitor may stand on each other: those without parents go first, until none is left. */
static void delete_all_nodes(struct graph *graph)
{
    bool progress;
    do {
        progress = false;
        for (struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
            if (node->monitor_owned && list_empty(&node->parents)) {
                progress = graph_del(graph, node->name, NULL);
                break; /* the list has changed */
            }
        }
    } while (progress);
}

static void take_down(struct daemon *daemon)
{
    job_set_cancel_all(daemon->jobs);
    nbd_servers_stop_all(daemon->nbd_servers, daemon->exports);
    export_close_all(daemon->exports);
    delete_all_nodes(daemon->graph);
}

void daemon_close(struct daemon *daemon)
{
    daemon->quitting = true;
    graph_give_up(daemon->graph);
    while (daemon->metrics.count) {
        metrics_server_free(*vec_last(&daemon->metrics));
        daemon->metrics.count--;
    }
    vec_free(&daemon->metrics);
    take_down(daemon); /* while the monitors can still tell of it */
    struct qmp_server *qmp = daemon->qmp;
    qmp_server_free(qmp);
    daemon->qmp = NULL;
    take_down(daemon); /* what a command that was under way may have made meanwhile */
    export_set_free(daemon->exports);
    iothreads_free(daemon->iothreads);
    job_set_free(daemon->jobs);
    graph_free(daemon->graph);
    nbd_servers_free(daemon->nbd_servers);
    object_set_free(daemon->objects);
}
