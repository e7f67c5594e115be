/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive circular doubly linked list: the link lives in the element, so that insertion and removal need no memory
 * and cannot fail. A head is a link that points at itself when the list is empty.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include "base/math.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

/* A zeroed or removed link is on no list. */
static inline bool list_linked(const struct list *link)
{
    return link->next && link->next != link;
}

static inline void list_insert_before(struct list *place, struct list *link)
{
    link->prev = place->prev;
    link->next = place;
    place->prev->next = link;
    place->prev = link;
}

static inline void list_append(struct list *head, struct list *link)
{
    list_insert_before(head, link);
}

static inline void list_prepend(struct list *head, struct list *link)
{
    list_insert_before(head->next, link);
}

/* Removing a link that is on no list does nothing. */
static inline void list_remove(struct list *link)
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = link;
}

#define list_entry(link, type, member) container_of(link, type, member)
#define list_first(head, type, member) (list_empty(head) ? NULL : list_entry((head)->next, type, member))
#define list_last(head, type, member) (list_empty(head) ? NULL : list_entry((head)->prev, type, member))

/* for (each element) { ... }; the _safe form allows removal of the current element. */
#define list_for_each(element, head, member)                                                                           \
    for (element = list_entry((head)->next, __typeof__(*element), member); &element->member != (head);                 \
         element = list_entry(element->member.next, __typeof__(*element), member))
#define list_for_each_safe(element, head, member)                                                                      \
    for (__typeof__(element) element##_next = (element = list_entry((head)->next, __typeof__(*element), member),       \
                                              list_entry(element->member.next, __typeof__(*element), member));         \
         &element->member != (head); element = element##_next,                                                         \
                             element##_next = list_entry(element##_next->member.next, __typeof__(*element), member))

#endif
