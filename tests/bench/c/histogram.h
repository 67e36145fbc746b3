/* histogram.h - latencies in buckets, 128 to an octave: a percentile errs by less than 0.8 %. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#define STEPS 7 /* 2^7 buckets to an octave */

struct histogram {
  uint64_t count, highest;
  uint64_t bucket[64 << STEPS];
};

static inline unsigned histogram_index(uint64_t v) {
  if (v < (1u << STEPS)) return (unsigned)v;
  int e = 63 - __builtin_clzll(v);
  return ((unsigned)(e - STEPS + 1) << STEPS) + (unsigned)((v >> (e - STEPS)) & ((1u << STEPS) - 1));
}

static inline void histogram_add(struct histogram *h, uint64_t v) {
  h->bucket[histogram_index(v)]++;
  h->count++;
  if (v > h->highest) h->highest = v;
}

/* The middle of the bucket in which the share P of all values is reached; 0 when there are none. */
static inline double histogram_percentile(const struct histogram *h, double p) {
  uint64_t wanted = (uint64_t)(p * (double)h->count), seen = 0;
  if (!h->count) return 0;
  for (unsigned i = 0; i < (64u << STEPS); i++) {
    seen += h->bucket[i];
    if (seen <= wanted) continue;
    if (i < (1u << STEPS)) return i;
    int e = (int)(i >> STEPS) + STEPS - 1;
    uint64_t width = 1ull << (e - STEPS);
    return (double)((1ull << e) + (i & ((1u << STEPS) - 1)) * width + width / 2);
  }
  return (double)h->highest;
}

#endif
