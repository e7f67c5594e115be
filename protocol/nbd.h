/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the nbd driver share: names of exports. */
#ifndef PROTOCOL_NBD_H
#define PROTOCOL_NBD_H

#include "block/driver.h"

struct blockdev_options_nbd;

/* nbd_name.c: a name as people write it into options, and the other way round (owned). */
bool nbd_parse_name(const char *name, struct blockdev_options *options, struct error *err);
char *nbd_name_of(const struct blockdev_options_nbd *options);

#endif
