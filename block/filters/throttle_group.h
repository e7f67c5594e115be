/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object `throttle-group`: limits that several nodes share. A node that is throttled joins as a member and asks
 * before each request; the limits hold for all members together, and members take turns. Limits can change at any time.
 */
#ifndef BLOCK_FILTERS_THROTTLE_GROUP_H
#define BLOCK_FILTERS_THROTTLE_GROUP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/co.h"
#include "base/error.h"
#include "base/list.h"

struct object;
struct object_set;

enum throttle_direction { THROTTLE_READ, THROTTLE_WRITE };

struct throttle_member {
    struct object *group;    /* held; NULL: not a member */
    struct list link;        /* in the group's round of members */
    struct list requests[2]; /* by direction: those that wait, first come first served */
    bool unlimited;          /* nothing waits (the node is being drained); what passes is counted all the same */
};

/* The group of that id, held for the caller. */
struct object *throttle_group_hold(struct object_set *objects, const char *id, struct error *err);
/* Takes over the hold. */
void throttle_join(struct throttle_member *member, struct object *group);
/* Requests of the member that wait are let through. */
void throttle_leave(struct throttle_member *member);
/* YIELDS until the request may begin. */
void throttle_request(struct throttle_member *member, enum throttle_direction direction, uint64_t bytes);
void throttle_set_unlimited(struct throttle_member *member, bool unlimited);

#endif
