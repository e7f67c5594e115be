# SPDX-License-Identifier: Apache-2.0
# Sv48: the same as sv39.S with a level more.
    .equ LEVELS, 4
    .equ SATP_MODE, 9
    .include "paging.inc"
