/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that measure a translator from inside a guest: integer work in the manner of CoreMark (lists, CRC, a state
 * machine, small matrices), calls, floating point and memory. Built as a static riscv64 program that the guest kernel
 * starts as its init; prints
 *
 *     KERNEL name nanoseconds checksum
 *
 * a line each and switches the machine off. Checksums must be equal on every emulator, or a time means nothing.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t state = 88172645463325252u;
static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* Integer ---------------------------------------------------------------------------------------------------------- */

struct item {
    struct item *next;
    int16_t key, info;
};

static NOINLINE struct item *merge_sort(struct item *list)
{
    for (int run = 1;; run *= 2) {
        struct item *left = list, *tail = NULL;
        int merges = 0;
        list = NULL;
        while (left) {
            struct item *right = left;
            int left_size = 0, right_size = run;
            merges++;
            while (left_size < run && right) {
                right = right->next;
                left_size++;
            }
            while (left_size || (right_size && right)) {
                struct item *taken;
                if (!left_size || (right_size && right && right->key < left->key)) {
                    taken = right;
                    right = right->next;
                    right_size--;
                } else {
                    taken = left;
                    left = left->next;
                    left_size--;
                }
                if (tail)
                    tail->next = taken;
                else
                    list = taken;
                tail = taken;
            }
            left = right;
        }
        tail->next = NULL;
        if (merges <= 1)
            return list;
    }
}

static NOINLINE uint16_t crc16(uint8_t byte, uint16_t crc)
{
    for (int i = 0; i < 8; i++) {
        int low = (byte ^ crc) & 1;
        byte >>= 1;
        crc >>= 1;
        if (low)
            crc ^= 0xa001;
    }
    return crc;
}

static NOINLINE int classify(const char *text) /* a state machine over digits, signs, points and exponents */
{
    enum { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, SCIENTIFIC, BAD } s = START;
    for (; *text && s != BAD; text++) {
        int digit = *text >= '0' && *text <= '9', sign = *text == '+' || *text == '-';
        switch (s) {
        case START: s = digit ? INTEGER : sign ? SIGN : *text == '.' ? POINT : BAD; break;
        case SIGN: s = digit ? INTEGER : *text == '.' ? POINT : BAD; break;
        case INTEGER: s = digit ? INTEGER : *text == '.' ? POINT : *text == 'e' ? EXPONENT : BAD; break;
        case POINT:
        case FRACTION: s = digit ? FRACTION : *text == 'e' ? EXPONENT : BAD; break;
        case EXPONENT: s = digit ? SCIENTIFIC : sign ? EXPONENT_SIGN : BAD; break;
        case EXPONENT_SIGN:
        case SCIENTIFIC: s = digit ? SCIENTIFIC : BAD; break;
        default: break;
        }
    }
    return s;
}

static uint64_t integer_work(void)
{
    static struct item items[400];
    static int32_t a[24][24], b[24][24], c[24][24];
    const char *texts[] = {"5012", "-87.4", "+1.5e-7", "abc", "0.33333e9", "1e", "12.12.12", "99999"};
    uint16_t crc = 0;
    for (int round = 0; round < 250; round++) {
        for (int i = 0; i < 400; i++)
            items[i] = (struct item){i < 399 ? &items[i + 1] : NULL, (int16_t)next_random(), (int16_t)i};
        for (struct item *p = merge_sort(items); p; p = p->next)
            crc = crc16((uint8_t)p->info, crc);
        for (int i = 0; i < 24; i++)
            for (int j = 0; j < 24; j++) {
                a[i][j] = (int32_t)(i * j + round);
                b[i][j] = (int32_t)(i - j);
            }
        for (int i = 0; i < 24; i++)
            for (int j = 0; j < 24; j++) {
                int32_t sum = 0;
                for (int k = 0; k < 24; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        crc = crc16((uint8_t)c[round % 24][7], crc);
        for (int i = 0; i < 200; i++)
            crc = crc16((uint8_t)classify(texts[(i + round) % 8]), crc);
    }
    return crc;
}

static NOINLINE uint64_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static NOINLINE uint64_t op_add(uint64_t x)
{
    return x + 7;
}
static NOINLINE uint64_t op_xor(uint64_t x)
{
    return x ^ (x >> 3);
}
static NOINLINE uint64_t op_mul(uint64_t x)
{
    return x * 2654435761u;
}
static NOINLINE uint64_t op_rotate(uint64_t x)
{
    return x << 9 | x >> 55;
}

static uint64_t calls(void)
{
    uint64_t (*const ops[4])(uint64_t) = {op_add, op_xor, op_mul, op_rotate};
    uint64_t x = fibonacci(29);
    for (int i = 0; i < 4000000; i++)
        x = ops[(x ^ (uint64_t)i) & 3](x);
    return x;
}

/* Floating point -----------------------------------------------------------------------------------------------------
 */

static uint64_t bits(double value)
{
    uint64_t b;
    memcpy(&b, &value, sizeof b);
    return b;
}

static uint64_t matrix(void)
{
    enum { N = 96 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = 1.0 / (i + j + 1);
            b[i][j] = (i * 3 + j) * 0.125;
        }
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double sum = c[i][j];
                for (int k = 0; k < N; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum * 0.5;
            }
    return bits(c[17][80]) ^ bits(c[95][3]);
}

static uint64_t bodies(void)
{
    double p[5][3], v[5][3], m[5] = {39.47, 0.0376, 0.0113, 0.0017, 0.002};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++) {
            p[i][k] = (i * 3.7 - k * 1.3) + 0.1 * k * i;
            v[i][k] = 0.2 * i - 0.3 * k;
        }
    for (int step = 0; step < 60000; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], square = 0.01;
                for (int k = 0; k < 3; k++) {
                    d[k] = p[i][k] - p[j][k];
                    square += d[k] * d[k];
                }
                double magnitude = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    v[i][k] -= d[k] * m[j] * magnitude;
                    v[j][k] += d[k] * m[i] * magnitude;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                p[i][k] += 0.001 * v[i][k];
    }
    return bits(p[0][0]) ^ bits(p[4][2]);
}

static uint64_t mandelbrot(void)
{
    uint64_t sum = 0;
    for (int y = 0; y < 120; y++)
        for (int x = 0; x < 160; x++) {
            double cr = x / 60.0 - 2.0, ci = y / 60.0 - 1.0, zr = 0, zi = 0;
            int n = 0;
            while (n < 200 && zr * zr + zi * zi < 4.0) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
                n++;
            }
            sum = sum * 31 + (uint64_t)n;
        }
    return sum;
}

/* Memory ----------------------------------------------------------------------------------------------------------- */

static uint64_t copies(void)
{
    enum { SIZE = 60000 };
    static char from[SIZE], to[SIZE];
    uint64_t sum = 0;
    for (int i = 0; i < SIZE; i++)
        from[i] = (char)(i * 7 | 1);
    from[SIZE - 1] = 0;
    for (int round = 0; round < 3000; round++) {
        from[round % 1000] ^= 2;
        memcpy(to, from, SIZE);
        sum += (uint8_t)to[(round * 77) % SIZE];
    }
    for (int round = 0; round < 300; round++)
        sum += strlen(to + round);
    return sum;
}

static uint64_t random_access(void)
{
    enum { WORDS = 1 << 20 }; /* 8 MiB: far beyond any TLB that maps 4 KiB pages */
    uint64_t *table = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uint64_t x = 12345, sum = 0;
    for (int i = 0; i < 3000000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        table[x >> 44] += x;
        sum ^= table[x >> 40 & (WORDS - 1)];
    }
    munmap(table, WORDS * 8);
    return sum;
}

/* The system ---------------------------------------------------------------------------------------------------------
 */

static uint64_t processes(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 300; i++) {
        pid_t child = fork();
        if (!child)
            _exit(i & 63);
        int status;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static uint64_t page_faults(void)
{
    uint64_t sum = 0;
    for (int round = 0; round < 4; round++) {
        enum { PAGES = 8192 };
        char *memory = mmap(NULL, PAGES * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(memory, PAGES * 4096ul, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++)
            memory[i * 4096ul] = (char)i;
        sum += (uint8_t)memory[4096ul * 77];
        munmap(memory, PAGES * 4096ul);
    }
    return sum;
}

static uint64_t switches(void)
{
    int there[2], back[2];
    char byte = 1;
    if (pipe(there) || pipe(back))
        return 0;
    if (!fork()) {
        while (read(there[0], &byte, 1) == 1 && byte)
            if (write(back[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    uint64_t done = 0;
    for (int i = 0; i < 10000; i++)
        if (write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1)
            done++;
    byte = 0;
    if (write(there[1], &byte, 1) == 1)
        wait(NULL);
    return done;
}

/* Integer work in four processes at once: as fast as there are processors for them. */
static uint64_t pieces(void)
{
    enum { PIECES = 4 };
    int results[2];
    uint64_t sum = 0, part;
    if (pipe(results))
        return 0;
    for (int i = 0; i < PIECES; i++) {
        if (fork())
            continue;
        part = 0;
        state = 1; /* whatever ran before */
        for (int round = 0; round < 2; round++)
            part += integer_work() + calls();
        _exit(write(results[1], &part, sizeof part) != sizeof part);
    }
    for (int i = 0; i < PIECES; i++)
        if (read(results[0], &part, sizeof part) == sizeof part)
            sum += part;
    while (wait(NULL) > 0)
        ;
    close(results[0]);
    close(results[1]);
    return sum;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
} kernels[] = {
    {"int.coremark-like", integer_work},
    {"int.calls", calls},
    {"fp.matrix", matrix},
    {"fp.bodies", bodies},
    {"fp.mandelbrot", mandelbrot},
    {"mem.copy", copies},
    {"mem.random", random_access},
    {"sys.processes", processes},
    {"sys.faults", page_faults},
    {"sys.switches", switches},
    {"smp.pieces", pieces},
};

/* The first argument, or `kernels=` of the kernel's command line (which reaches init as an environment variable),
 * chooses by the beginning of the name; without it all run but those that are about several processors. */
int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *chosen = argc > 1 ? argv[1] : getenv("kernels") ? getenv("kernels") : "";
    printf("KERNELS START\n");
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        bool alone = !strncmp(kernels[i].name, "smp.", 4);
        if (*chosen ? strncmp(kernels[i].name, chosen, strlen(chosen)) : alone)
            continue;
        uint64_t start = now_ns();
        uint64_t sum = kernels[i].run();
        printf("KERNEL %s %llu %016llx\n", kernels[i].name, (unsigned long long)(now_ns() - start),
               (unsigned long long)sum);
    }
    printf("KERNELS DONE\n");
    fflush(stdout);
    if (getpid() == 1) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return 0;
}
