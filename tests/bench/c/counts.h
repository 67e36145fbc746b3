/* counts.h - what the generator counts between two reports, and how it is printed. */
#ifndef COUNTS_H
#define COUNTS_H

#include "common.h"
#include "histogram.h"

struct counts {
  uint64_t events, others, gaps; /* stamped events; messages without a stamp; `gap` messages among those */
  uint64_t holes, repeats;       /* numbers that were passed over; numbers that came again or late */
  uint64_t bytes, receives;
  uint64_t first, last;          /* when the first and the last event came */
  double cpu;                    /* CPU seconds of this program when the first event came */
  struct histogram latency;
};

/* The number after KEY, or -1. */
static inline int64_t number_after(const char *text, size_t length, const char *key, const char **at) {
  const char *end = text + length, *p = memmem(text, length, key, strlen(key));
  int64_t value = 0;
  if (!p) return -1;
  for (p += strlen(key); p < end && *p == ' '; p++) continue;
  if (p == end || *p < '0' || *p > '9') return -1;
  for (; p < end && *p >= '0' && *p <= '9'; p++) value = value * 10 + (*p - '0');
  *at = p;
  return value;
}

/* What a client expects: the next number of each source. */
struct expected {
  uint32_t *next;
  int64_t sources;
};

static inline uint32_t *next_of(struct expected *e, int64_t source) {
  if (source < 0 || source > 65535) source = 65536; /* not one of ours: its numbers will not fit together */
  if (source >= e->sources) {
    e->next = realloc(e->next, (size_t)(source + 1) * sizeof *e->next);
    if (!e->next) die("realloc");
    memset(e->next + e->sources, 0, (size_t)(source + 1 - e->sources) * sizeof *e->next);
    e->sources = source + 1;
  }
  return &e->next[source];
}

/* Counts one message to a client that expects E; returns whether it was an event. */
static inline bool count_event(struct counts *c, struct expected *e, const char *text, size_t length, uint64_t at) {
  const char *rest;
  int64_t stamp = number_after(text, length, "\"t\":", &rest);
  if (stamp < 0) {
    c->others++;
    c->gaps += memmem(text, length, "event: gap", 10) || memmem(text, length, "\"type\":\"gap\"", 12);
    return false;
  }
  if (!c->events++) {
    c->first = at;
    c->cpu = cpu_seconds();
  }
  c->last = at;
  histogram_add(&c->latency, at > (uint64_t)stamp ? at - (uint64_t)stamp : 0);
  uint32_t *next = next_of(e, number_after(rest, length - (size_t)(rest - text), "\"s\":", &rest));
  int64_t n = number_after(rest, length - (size_t)(rest - text), "\"n\":", &rest);
  if (n < *next) c->repeats++;
  else {
    c->holes += (uint64_t)(n - *next);
    *next = (uint32_t)n + 1;
  }
  return true;
}

/* Prints the counts as the members of a JSON object, without its braces. */
static inline void print_counts(const struct counts *c) {
  const struct histogram *h = &c->latency;
  double busy = c->events ? (double)(c->last - c->first) / 1e9 : 0;
  double cpu = c->events ? cpu_seconds() - c->cpu : 0;
  printf("\"events\":%llu,\"others\":%llu,\"gaps\":%llu,\"holes\":%llu,\"repeats\":%llu,\"bytes\":%llu,"
         "\"receives\":%llu,\"busy_seconds\":%.6f,\"deliveries_per_second\":%.1f,\"cpu_share\":%.3f,"
         "\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"p999_ms\":%.4f,\"highest_ms\":%.4f",
         (unsigned long long)c->events, (unsigned long long)c->others, (unsigned long long)c->gaps,
         (unsigned long long)c->holes, (unsigned long long)c->repeats, (unsigned long long)c->bytes,
         (unsigned long long)c->receives, busy, busy > 0 ? (double)c->events / busy : 0, busy > 0 ? cpu / busy : 0,
         histogram_percentile(h, .5) / 1e6, histogram_percentile(h, .9) / 1e6, histogram_percentile(h, .99) / 1e6,
         histogram_percentile(h, .999) / 1e6, (double)h->highest / 1e6);
}

#endif
