/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that users can create with -device: a table of names, properties and functions. */
#ifndef EMULATOR_USER_DEVICES_H
#define EMULATOR_USER_DEVICES_H

#include <stdbool.h>

/* Prints the table for "help", or one device's properties for "NAME,help". False: not a call for help. */
bool user_device_help(const char *text);

#endif
