/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end's side of the vhost-user conversation: one function a message. A message that makes no sense ends the
 * connection with a warning that says why; the export goes on listening, so the front end can come back.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/log.h"
#include "vhost-user/internal.h"

#define PROTOCOL_FEATURES                                                                                              \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |                              \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |                     \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |                     \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))

static uint64_t device_features(const struct device *device)
{
    return virtio_blk_features(&device->limits) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |
           VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_PACKED) | VIRTIO_BIT(VHOST_F_LOG_ALL) |
           VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
}

static bool has_protocol_feature(const struct device *device, unsigned bit)
{
    return device->protocol_features & VIRTIO_BIT(bit);
}

/* Stops all queues that run, for changes to what they stand on; device_resume() starts those again that can. */
static void device_quiesce(struct device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_stop(&device->queues[i]);
}

static bool device_resume(struct device *device, struct error *err)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (!queue_update(&device->queues[i], err))
            return false;
    }
    return true;
}

static struct queue *find_queue(struct device *device, uint64_t index, struct error *err)
{
    if (index >= device->queue_count)
        return fail_null(err, EINVAL, "queue %llu: the device has %u", (unsigned long long)index, device->queue_count);
    return &device->queues[index];
}

/* Messages. Each gets the message and may make it the answer: then it returns the answer's size in *reply. -----------
 */

enum { NO_REPLY = -1 };

static bool reply_number(struct vhost_user_message *message, uint64_t number, int *reply)
{
    message->payload.number = number;
    *reply = sizeof message->payload.number;
    return true;
}

static bool get_features(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                         struct error *err)
{
    return reply_number(message, device_features(device), reply);
}

static bool set_features(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                         struct error *err)
{
    uint64_t unknown = message->payload.number & ~device_features(device);
    if (unknown)
        return fail(err, EINVAL, "features %#llx were not offered", (unsigned long long)unknown);
    /* Only logging may change while queues run. */
    if ((device->features ^ message->payload.number) & ~VIRTIO_BIT(VHOST_F_LOG_ALL))
        device_quiesce(device);
    device->features = message->payload.number;
    memory_update_logging(device);
    if (!(device->features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES))) {
        for (unsigned i = 0; i < device->queue_count; i++)
            device->queues[i].enabled = true; /* without that feature rings need no enabling */
    }
    return device_resume(device, err);
}

static bool set_owner(struct device *device, struct vhost_user_message *message, int *reply, int *fd, struct error *err)
{
    return true;
}

static bool reset_owner(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                        struct error *err)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_reset(&device->queues[i]);
    return true;
}

static bool set_mem_table(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                          struct error *err)
{
    device_quiesce(device);
    return memory_set_table(device, message, err) && device_resume(device, err);
}

static bool set_log_base(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                         struct error *err)
{
    struct vhost_user_log log = message->payload.log;
    if (!memory_set_log(device, &log, message->fd_count ? message->fds[0] : -1, err))
        return false;
    return has_protocol_feature(device, VHOST_USER_PROTOCOL_F_LOG_SHMFD) ? reply_number(message, 0, reply) : true;
}

static bool set_log_fd(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                       struct error *err)
{
    return true; /* would tell the front end when the log has grown; it looks by itself */
}

static bool set_vring_num(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                          struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.state.index, err);
    uint32_t size = message->payload.state.number;
    if (!queue)
        return false;
    if (!size || size > VIRTQUEUE_MAX_SIZE)
        return fail(err, EINVAL, "queue %u: size %u: must be from 1 to %u", queue->index, size, VIRTQUEUE_MAX_SIZE);
    queue_stop(queue);
    queue->size = (uint16_t)size;
    return queue_update(queue, err);
}

static bool set_vring_addr(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                           struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.addresses.index, err);
    if (!queue)
        return false;
    queue_stop(queue);
    queue->addresses = message->payload.addresses;
    queue->has_addresses = true;
    return queue_update(queue, err);
}

static bool set_vring_base(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                           struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.state.index, err);
    if (!queue)
        return false;
    queue_stop(queue);
    queue->base = message->payload.state.number;
    return queue_update(queue, err);
}

static bool get_vring_base(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                           struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.state.index, err);
    if (!queue)
        return false;
    queue_stop(queue);
    queue_set_fd(&queue->kick_fd, -1); /* the ring is stopped until a new kick descriptor comes */
    message->payload.state.number = queue->base;
    *reply = sizeof message->payload.state;
    return true;
}

/* Kick, call and error descriptors come in the same form. Foreign descriptors must never block us. */
static bool take_vring_fd(struct device *device, struct vhost_user_message *message, int *slot_of(struct queue *),
                          bool needed, struct queue **queue, struct error *err)
{
    uint64_t number = message->payload.number;
    *queue = find_queue(device, number & VHOST_USER_VRING_INDEX_MASK, err);
    if (!*queue)
        return false;
    int fd = number & VHOST_USER_VRING_NO_FD ? -1 : message_take_fd(message);
    if (fd < 0 && (needed || !(number & VHOST_USER_VRING_NO_FD)))
        return fail(err, EINVAL, "queue %u: a file descriptor must come with this message (polling is not done)",
                    (*queue)->index);
    if (fd >= 0 && (!message_fd_is_event(fd) || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
        close(fd);
        return fail(err, EINVAL, "queue %u: the file descriptor is no eventfd", (*queue)->index);
    }
    queue_set_fd(slot_of(*queue), fd);
    return true;
}

static int *kick_slot(struct queue *queue)
{
    return &queue->kick_fd;
}

static int *call_slot(struct queue *queue)
{
    return &queue->call_fd;
}

static int *error_slot(struct queue *queue)
{
    return &queue->error_fd;
}

static bool set_vring_kick(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                           struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.number & VHOST_USER_VRING_INDEX_MASK, err);
    if (!queue)
        return false;
    queue_stop(queue);
    return take_vring_fd(device, message, kick_slot, true, &queue, err) && queue_update(queue, err);
}

static bool set_vring_call(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                           struct error *err)
{
    struct queue *queue;
    return take_vring_fd(device, message, call_slot, false, &queue, err);
}

static bool set_vring_err(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                          struct error *err)
{
    struct queue *queue;
    return take_vring_fd(device, message, error_slot, false, &queue, err);
}

static bool get_protocol_features(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                                  struct error *err)
{
    return reply_number(message, PROTOCOL_FEATURES, reply);
}

static bool set_protocol_features(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                                  struct error *err)
{
    if (message->payload.number & ~PROTOCOL_FEATURES)
        return fail(err, EINVAL, "protocol features %#llx were not offered",
                    (unsigned long long)(message->payload.number & ~PROTOCOL_FEATURES));
    device->protocol_features = message->payload.number;
    return true;
}

static bool get_queue_num(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                          struct error *err)
{
    return reply_number(message, device->queue_count, reply);
}

static bool set_vring_enable(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                             struct error *err)
{
    struct queue *queue = find_queue(device, message->payload.state.index, err);
    if (!queue)
        return false;
    queue->enabled = message->payload.state.number;
    if (!queue->enabled)
        queue_stop(queue);
    return queue_update(queue, err);
}

static void close_backend_channel(struct device *device)
{
    if (!device->backend_channel)
        return;
    stream_shutdown(device->backend_channel); /* somebody may be sending to a front end that does not read */
    co_group_cancel(&device->notifiers);
    co_group_wait(&device->notifiers);
    co_group_init(&device->notifiers);
    stream_close(device->backend_channel);
    device->backend_channel = NULL;
}

static bool set_backend_req_fd(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                               struct error *err)
{
    int channel = message_take_fd(message);
    if (channel < 0)
        return fail(err, EINVAL, "the back end's channel came without a file descriptor");
    close_backend_channel(device);
    device->backend_channel = stream_from_fd(device->loop, channel);
    return true;
}

static bool get_config(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                       struct error *err)
{
    struct vhost_user_config *config = &message->payload.config;
    uint8_t space[VHOST_USER_MAX_CONFIG] = {0};
    if (!span_fits(config->offset, config->size, sizeof space))
        return fail(err, EINVAL, "configuration space: %u bytes at %u lie outside of its %zu", config->size,
                    config->offset, sizeof space);
    virtio_blk_config_encode(&device->limits, space);
    memcpy(config->data, space + config->offset, config->size);
    *reply = (int)(offsetof(struct vhost_user_config, data) + config->size);
    return true;
}

static bool set_config(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                       struct error *err)
{
    const struct vhost_user_config *config = &message->payload.config;
    if (config->offset != VIRTIO_BLK_CONFIG_WRITEBACK || config->size != 1)
        return fail(err, EINVAL, "configuration space: only the write-back byte can be written, not %u bytes at %u",
                    config->size, config->offset);
    device->limits.writeback = config->data[0] && !device->export->writethrough;
    return true;
}

static bool get_inflight_fd(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                            struct error *err)
{
    struct vhost_user_inflight description = message->payload.inflight;
    device_quiesce(device);
    if (!inflight_create(device, &description, fd, err) || !inflight_attach(device, &description, *fd, err))
        return false;
    message->payload.inflight = description;
    *reply = sizeof description;
    return device_resume(device, err);
}

static bool set_inflight_fd(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                            struct error *err)
{
    struct vhost_user_inflight description = message->payload.inflight;
    device_quiesce(device);
    return inflight_attach(device, &description, message->fd_count ? message->fds[0] : -1, err) &&
           device_resume(device, err);
}

static bool get_max_mem_slots(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                              struct error *err)
{
    return reply_number(message, GUEST_REGIONS_MAX, reply);
}

static bool add_mem_reg(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                        struct error *err)
{
    struct vhost_user_region region = message->payload.single_region.region;
    device_quiesce(device); /* the table must not change under a queue */
    return memory_add(device, &region, message->fd_count ? message->fds[0] : -1, err) && device_resume(device, err);
}

static bool rem_mem_reg(struct device *device, struct vhost_user_message *message, int *reply, int *fd,
                        struct error *err)
{
    struct vhost_user_region region = message->payload.single_region.region;
    device_quiesce(device);
    return memory_remove(device, &region, err) && device_resume(device, err);
}

static const struct message_type {
    uint32_t request, minimum_size; /* of the payload */
    bool (*handle)(struct device *device, struct vhost_user_message *message, int *reply, int *fd, struct error *err);
} message_types[] = {
    {VHOST_USER_GET_FEATURES, 0, get_features},
    {VHOST_USER_SET_FEATURES, 8, set_features},
    {VHOST_USER_SET_OWNER, 0, set_owner},
    {VHOST_USER_RESET_OWNER, 0, reset_owner},
    {VHOST_USER_SET_MEM_TABLE, 8, set_mem_table},
    {VHOST_USER_SET_LOG_BASE, sizeof(struct vhost_user_log), set_log_base},
    {VHOST_USER_SET_LOG_FD, 0, set_log_fd},
    {VHOST_USER_SET_VRING_NUM, sizeof(struct vhost_user_vring_state), set_vring_num},
    {VHOST_USER_SET_VRING_ADDR, sizeof(struct vhost_user_vring_addresses), set_vring_addr},
    {VHOST_USER_SET_VRING_BASE, sizeof(struct vhost_user_vring_state), set_vring_base},
    {VHOST_USER_GET_VRING_BASE, sizeof(struct vhost_user_vring_state), get_vring_base},
    {VHOST_USER_SET_VRING_KICK, 8, set_vring_kick},
    {VHOST_USER_SET_VRING_CALL, 8, set_vring_call},
    {VHOST_USER_SET_VRING_ERR, 8, set_vring_err},
    {VHOST_USER_GET_PROTOCOL_FEATURES, 0, get_protocol_features},
    {VHOST_USER_SET_PROTOCOL_FEATURES, 8, set_protocol_features},
    {VHOST_USER_GET_QUEUE_NUM, 0, get_queue_num},
    {VHOST_USER_SET_VRING_ENABLE, sizeof(struct vhost_user_vring_state), set_vring_enable},
    {VHOST_USER_SET_BACKEND_REQ_FD, 0, set_backend_req_fd},
    {VHOST_USER_GET_CONFIG, offsetof(struct vhost_user_config, data), get_config},
    {VHOST_USER_SET_CONFIG, offsetof(struct vhost_user_config, data) + 1, set_config},
    {VHOST_USER_GET_INFLIGHT_FD, offsetof(struct vhost_user_inflight, queue_size) + 2, get_inflight_fd},
    {VHOST_USER_SET_INFLIGHT_FD, offsetof(struct vhost_user_inflight, queue_size) + 2, set_inflight_fd},
    {VHOST_USER_GET_MAX_MEM_SLOTS, 0, get_max_mem_slots},
    {VHOST_USER_ADD_MEM_REG, sizeof(struct vhost_user_single_region), add_mem_reg},
    {VHOST_USER_REM_MEM_REG, sizeof(struct vhost_user_single_region), rem_mem_reg},
};

static const struct message_type *find_type(uint32_t request)
{
    for (size_t i = 0; i < ARRAY_SIZE(message_types); i++) {
        if (message_types[i].request == request)
            return &message_types[i];
    }
    return NULL;
}

static bool handle(struct device *device, struct vhost_user_message *message, struct error *err)
{
    const struct message_type *type = find_type(message->header.request);
    if (!type)
        return fail(err, ENOSYS, "request %u is not known", message->header.request);
    if (message->header.size < type->minimum_size)
        return fail(err, EPROTO, "request %u has a payload of %u bytes, expected %u", message->header.request,
                    message->header.size, type->minimum_size);
    bool wants_ack =
        message->header.flags & VHOST_USER_NEED_REPLY && has_protocol_feature(device, VHOST_USER_PROTOCOL_F_REPLY_ACK);
    int reply = NO_REPLY, fd = -1;
    bool good = type->handle(device, message, &reply, &fd, err);
    if (reply == NO_REPLY && wants_ack) {
        reply_number(message, good ? 0 : 1, &reply);
        message_reply(device->stream, message, (uint32_t)reply, -1);
    } else if (good && reply != NO_REPLY) {
        good = message_reply(device->stream, message, (uint32_t)reply, fd) ||
               fail(err, EPIPE, "the front end does not take its answer");
    }
    if (fd >= 0)
        close(fd);
    return good;
}

static void forget_front_end(struct device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        queue_reset(&device->queues[i]);
    inflight_detach(device);
    mapping_close(&device->log);
    device->features = device->protocol_features = 0;
    memory_clear(device);
    close_backend_channel(device);
    device->limits.writeback = !device->export->writethrough;
}

bool device_may_warn(struct device *device)
{
    enum { WARNINGS_A_MINUTE = 20 };
    uint64_t now = loop_now_ns(device->loop);
    if (now - device->warning_time > 60000000000u) {
        device->warning_time = now;
        device->warnings = 0;
    }
    return device->warnings++ < WARNINGS_A_MINUTE;
}

void device_serve(struct device *device)
{
    for (;;) {
        struct vhost_user_message message;
        int got = message_receive(device->stream, &message);
        if (got <= 0) {
            if (got == -EPROTO && device_may_warn(device))
                log_warning("export '%s': the front end sent no vhost-user message", device->export->id);
            break;
        }
        auto_error err = {0};
        bool good = handle(device, &message, &err);
        message_close_fds(&message);
        if (!good) {
            if (device_may_warn(device))
                log_warning("export '%s': front end is disconnected: %s", device->export->id, err.message);
            break;
        }
    }
    forget_front_end(device);
}

/* The disk has another size: the front end is told to read the configuration space again. */
static void send_config_change(void *arg)
{
    struct device *device = arg;
    struct vhost_user_header header = {VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, 0};
    while (device->config_changed) {
        device->config_changed = false;
        if (stream_send_all(device->backend_channel, &header, sizeof header) < 0)
            return; /* the front end's loss; its connection shows whether it is still there */
    }
}

void device_notify_resize(struct device *device, uint64_t size)
{
    device->limits.capacity_bytes = round_down(size, device->limits.block_size);
    device->config_changed = true;
    if (device->backend_channel && !device->notifiers.running)
        co_spawn(device->loop, &device->notifiers, send_config_change, device);
}
