/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only source of time and randomness for a machine, so that a run can later be recorded and replayed. Guest time
 * stands still while the machine is stopped. Timers fire on the main loop's thread; they may be armed from any thread.
 */
#ifndef EMULATOR_CLOCK_CLOCK_H
#define EMULATOR_CLOCK_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct clock;

struct clock *clock_new(struct loop *loop); /* stopped at 0 */
void clock_free(struct clock *clock);
void clock_start(struct clock *clock);
void clock_stop(struct clock *clock);

uint64_t clock_now_ns(const struct clock *clock);  /* guest nanoseconds since start; any thread, no lock */
uint64_t clock_wall_ns(const struct clock *clock); /* real time of day for RTCs, ns since 1970 */
void clock_random(struct clock *clock, void *buffer, size_t size); /* for virtio-rng, device-tree rng-seed */

/* Calls fn(arg) on the main loop's thread, not holding the machine lock, when guest time reaches the deadline. Arming
 * again moves it. After clock_timer_cancel() returns on the loop's thread, fn is not called any more. */
struct clock_timer;
struct clock_timer *clock_timer_new(struct clock *clock, void (*fn)(void *arg), void *arg);
void clock_timer_free(struct clock_timer *timer);
void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns);
void clock_timer_cancel(struct clock_timer *timer);

#endif
