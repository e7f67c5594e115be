/* SPDX-License-Identifier: Apache-2.0 */
/* The node driver `confined`: an image that another process parses. Private to the doorman, whose copy of it goes into
 * graphs; and what a tool may ask of such a node. */
#ifndef CONFINED_DRIVER_H
#define CONFINED_DRIVER_H

#include "block/driver.h"

struct doorman;

extern const struct block_driver confined_driver;
struct doorman *doorman_of(const struct block_driver *driver); /* of a doorman's copy */

/* The format of the image inside ("qcow2"); NULL: this is not a confined node. */
const char *confined_format(const struct node *node);
/* Can the format inside be checked? */
bool confined_can_check(const struct node *node);

#endif
