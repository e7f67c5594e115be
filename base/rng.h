/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded pseudo-random numbers for simulations and tests: xoshiro256** started by splitmix64 (Blackman and Vigna,
 * public domain algorithms). The same seed gives the same numbers everywhere. Not for secrets. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
    uint64_t state[4];
};

/* The next number of the sequence that a counter starts; also a good mixer of one number. */
static inline uint64_t splitmix64(uint64_t *counter)
{
    uint64_t z = *counter += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline void rng_seed(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        rng->state[i] = splitmix64(&seed);
}

static inline uint64_t rng_rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t *s = rng->state, result = rng_rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotate(s[3], 45);
    return result;
}

/* Evenly in [0, limit); limit must not be 0. */
static inline uint64_t rng_below(struct rng *rng, uint64_t limit)
{
    return (uint64_t)((unsigned __int128)rng_next(rng) * limit >> 64);
}

/* Evenly in [low, high]. */
static inline uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    return low + rng_below(rng, high - low + 1);
}

static inline bool rng_coin(struct rng *rng)
{
    return rng_next(rng) >> 63;
}

static inline void rng_fill(struct rng *rng, void *buffer, size_t size)
{
    unsigned char *bytes = (unsigned char *)buffer;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t value = rng_next(rng);
        memcpy(bytes, &value, 8);
    }
    if (size) {
        uint64_t value = rng_next(rng);
        memcpy(bytes, &value, size);
    }
}

#endif
