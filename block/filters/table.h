/* SPDX-License-Identifier: Apache-2.0 */
/* The filters that users can name; ends with NULL. A new filter is a file here and a line in table.c. */
#ifndef BLOCK_FILTERS_TABLE_H
#define BLOCK_FILTERS_TABLE_H

struct block_driver;
struct object_kind;

extern const struct block_driver *const filters_table[];
/* The kinds of objects that filters need. */
extern const struct object_kind *const filter_object_kinds[];

#endif
