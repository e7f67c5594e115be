/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vhost-user protocol, for both ends (vhost-user/ is the back end, emulator/storage/ the front end), as its
 * specification ("Vhost-user Protocol", docs/interop/vhost-user.rst of the QEMU project) numbers it. Both ends run on
 * one host: everything is in host byte order, structures are sent as they are.
 */
#ifndef VIRTIO_VHOST_USER_H
#define VIRTIO_VHOST_USER_H

#include <stdint.h>

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_RESET_OWNER = 4,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_LOG_BASE = 6,
    VHOST_USER_SET_LOG_FD = 7,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_SET_VRING_ERR = 14,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG = 25,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD = 32,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG = 37,
    VHOST_USER_REM_MEM_REG = 38,
};

enum vhost_user_backend_request { VHOST_USER_BACKEND_CONFIG_CHANGE = 2 };

enum vhost_user_flag {
    VHOST_USER_VERSION = 1,
    VHOST_USER_VERSION_MASK = 3,
    VHOST_USER_REPLY = 4,
    VHOST_USER_NEED_REPLY = 8
};

#define VHOST_F_LOG_ALL 26u
#define VHOST_USER_F_PROTOCOL_FEATURES 30u

enum vhost_user_protocol_feature {
    VHOST_USER_PROTOCOL_F_MQ = 0,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
    VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
    VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
    VHOST_USER_PROTOCOL_F_CONFIG = 9,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
};

/* Limits: the specification's 8 file descriptors a message and 256 bytes of configuration. */
enum { VHOST_USER_MAX_FDS = 8, VHOST_USER_MAX_CONFIG = 256 };

#define VHOST_USER_VRING_INDEX_MASK 0xffu
#define VHOST_USER_VRING_NO_FD (1u << 8)
#define VHOST_USER_LOG_PAGE 4096u

struct vhost_user_vring_state {
    uint32_t index, number;
};

struct vhost_user_vring_addresses {
    uint32_t index, flags;
    uint64_t descriptors, used, available; /* in the front end's address space */
    uint64_t log;                          /* guest address of the used ring, for the log */
};

struct vhost_user_region {
    uint64_t guest_address, size, user_address, mmap_offset;
};
struct vhost_user_memory {
    uint32_t count, padding;
    struct vhost_user_region regions[VHOST_USER_MAX_FDS];
};
struct vhost_user_single_region {
    uint64_t padding;
    struct vhost_user_region region;
};

struct vhost_user_config {
    uint32_t offset, size, flags;
    uint8_t data[VHOST_USER_MAX_CONFIG];
};

struct vhost_user_inflight {
    uint64_t mmap_size, mmap_offset;
    uint16_t num_queues, queue_size;
};

struct vhost_user_log {
    uint64_t mmap_size, mmap_offset;
};

struct vhost_user_header {
    uint32_t request, flags, size;
};

struct vhost_user_message {
    struct vhost_user_header header;
    union __attribute__((packed, aligned(4))) {
        uint64_t number;
        struct vhost_user_vring_state state;
        struct vhost_user_vring_addresses addresses;
        struct vhost_user_memory memory;
        struct vhost_user_single_region single_region;
        struct vhost_user_config config;
        struct vhost_user_inflight inflight;
        struct vhost_user_log log;
        uint8_t bytes[sizeof(struct vhost_user_memory)];
    } payload;
    int fds[VHOST_USER_MAX_FDS];
    int fd_count;
};

/* The record of requests in flight ("Inflight I/O tracking"): one region for all queues. */
struct inflight_split_entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};
struct inflight_split {
    uint64_t features;
    uint16_t version, entry_count, last_batch_head, used_index;
    struct inflight_split_entry entries[];
};
struct inflight_packed_entry {
    uint8_t inflight, padding;
    uint16_t next, last, count;
    uint64_t counter;
    uint16_t id, flags;
    uint32_t length;
    uint64_t address;
};
struct inflight_packed {
    uint64_t features;
    uint16_t version, entry_count, free_head, old_free_head, used_index, old_used_index;
    uint8_t used_wrap, old_used_wrap, padding[7];
    struct inflight_packed_entry entries[];
};

#endif
