/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable arrays of any type. A zeroed vec is empty and owns nothing.
 *
 *     auto_free vec(struct extent) extents = {0};      // the memory goes with the scope
 *     vec_push(&extents, ((struct extent){...}));
 *     struct extent *e;
 *     vec_for_each (e, &extents) { ... }
 *
 * Growth aborts when memory is out, so whoever lets outsiders decide on the count limits it first, or asks
 * vec_try_reserve(). Elements move when the array grows: keep indexes, not pointers. None of these yields.
 */
#ifndef BASE_VEC_H
#define BASE_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

/* `items` comes first, so that auto_free works on the whole. Each use of vec() is a type of its own: name the struct
 * (vec_of(tag, type)) when it travels between functions. */
#define vec(type)                                                                                                      \
    struct {                                                                                                           \
        type *items;                                                                                                   \
        size_t count, capacity;                                                                                        \
    }
#define vec_of(tag, type)                                                                                              \
    struct tag {                                                                                                       \
        type *items;                                                                                                   \
        size_t count, capacity;                                                                                        \
    }

static inline size_t vec_next_capacity(size_t capacity, size_t wanted)
{
    size_t grown = capacity < 8 ? 8 : capacity + capacity / 2;
    return grown < wanted ? wanted : grown;
}

#define vec_reserve(vec, wanted)                                                                                       \
    do {                                                                                                               \
        __typeof__(vec) vec_reserve_it = (vec);                                                                        \
        size_t vec_wanted = (wanted);                                                                                  \
        if (vec_reserve_it->capacity < vec_wanted) {                                                                   \
            vec_wanted = vec_next_capacity(vec_reserve_it->capacity, vec_wanted);                                      \
            vec_reserve_it->items = (__typeof__(vec_reserve_it->items))xrealloc_array(                                 \
                vec_reserve_it->items, vec_wanted, sizeof *vec_reserve_it->items);                                     \
            vec_reserve_it->capacity = vec_wanted;                                                                     \
        }                                                                                                              \
    } while (0)

/* False when memory is out; the vec is then as it was. */
#define vec_try_reserve(vec, wanted)                                                                                   \
    ({                                                                                                                 \
        __typeof__(vec) vec_try_it = (vec);                                                                            \
        size_t vec_try_wanted = (wanted);                                                                              \
        bool vec_try_ok = vec_try_wanted <= vec_try_it->capacity;                                                      \
        if (!vec_try_ok) {                                                                                             \
            void *vec_try_items = reallocarray(vec_try_it->items, vec_try_wanted, sizeof *vec_try_it->items);          \
            vec_try_ok = vec_try_items != NULL;                                                                        \
            if (vec_try_ok) {                                                                                          \
                vec_try_it->items = (__typeof__(vec_try_it->items))vec_try_items;                                      \
                vec_try_it->capacity = vec_try_wanted;                                                                 \
            }                                                                                                          \
        }                                                                                                              \
        vec_try_ok;                                                                                                    \
    })

#define vec_push(vec, value)                                                                                           \
    do {                                                                                                               \
        __typeof__(vec) vec_push_it = (vec);                                                                           \
        __typeof__(*vec_push_it->items) vec_push_value = (value);                                                      \
        vec_reserve(vec_push_it, vec_push_it->count + 1);                                                              \
        vec_push_it->items[vec_push_it->count++] = vec_push_value;                                                     \
    } while (0)

/* Appends `n` elements from an array, which must not be part of this vec. */
#define vec_append(vec, array, n)                                                                                      \
    do {                                                                                                               \
        __typeof__(vec) vec_append_it = (vec);                                                                         \
        size_t vec_append_n = (n);                                                                                     \
        const __typeof__(*vec_append_it->items) *vec_append_from = (array);                                            \
        if (vec_append_n) {                                                                                            \
            vec_reserve(vec_append_it, vec_append_it->count + vec_append_n);                                           \
            memcpy(vec_append_it->items + vec_append_it->count, vec_append_from,                                       \
                   vec_append_n * sizeof *vec_append_from);                                                            \
            vec_append_it->count += vec_append_n;                                                                      \
        }                                                                                                              \
    } while (0)

#define vec_insert(vec, index, value)                                                                                  \
    do {                                                                                                               \
        __typeof__(vec) vec_insert_it = (vec);                                                                         \
        size_t vec_insert_at = (index);                                                                                \
        __typeof__(*vec_insert_it->items) vec_insert_value = (value);                                                  \
        vec_reserve(vec_insert_it, vec_insert_it->count + 1);                                                          \
        memmove(vec_insert_it->items + vec_insert_at + 1, vec_insert_it->items + vec_insert_at,                        \
                (vec_insert_it->count - vec_insert_at) * sizeof *vec_insert_it->items);                                \
        vec_insert_it->items[vec_insert_at] = vec_insert_value;                                                        \
        vec_insert_it->count++;                                                                                        \
    } while (0)

/* Removes one element and keeps the order of the rest. */
#define vec_remove(vec, index)                                                                                         \
    do {                                                                                                               \
        __typeof__(vec) vec_remove_it = (vec);                                                                         \
        size_t vec_remove_at = (index);                                                                                \
        vec_remove_it->count--;                                                                                        \
        memmove(vec_remove_it->items + vec_remove_at, vec_remove_it->items + vec_remove_at + 1,                        \
                (vec_remove_it->count - vec_remove_at) * sizeof *vec_remove_it->items);                                \
    } while (0)

/* Removes one element by putting the last into its place. */
#define vec_remove_swap(vec, index)                                                                                    \
    do {                                                                                                               \
        __typeof__(vec) vec_swap_it = (vec);                                                                           \
        size_t vec_swap_at = (index);                                                                                  \
        vec_swap_it->items[vec_swap_at] = vec_swap_it->items[--vec_swap_it->count];                                    \
    } while (0)

#define vec_pop(vec) ((vec)->items[--(vec)->count]) /* must not be empty */
#define vec_last(vec) ((vec)->items + (vec)->count - 1)
#define vec_clear(vec) ((void)((vec)->count = 0))

#define vec_free(vec)                                                                                                  \
    do {                                                                                                               \
        __typeof__(vec) vec_free_it = (vec);                                                                           \
        free(vec_free_it->items);                                                                                      \
        vec_free_it->items = NULL;                                                                                     \
        vec_free_it->count = vec_free_it->capacity = 0;                                                                \
    } while (0)

/* The bound is a difference: NULL + 0, which an empty vec would give, is not defined in C. */
#define vec_for_each(pointer, vec)                                                                                     \
    for (pointer = (vec)->items; (vec)->count && (size_t)((pointer) - (vec)->items) < (vec)->count; (pointer)++)

#endif
