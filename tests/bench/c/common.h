/* common.h - what the three programs share: the clock, loopback addresses, an end together with their parent. */
#ifndef COMMON_H
#define COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

static inline uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static inline double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static inline _Noreturn void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
  exit(2);
}

/* Called first by each main: a harness that is killed leaves nothing running, and a peer that goes away is
 * an error of one send, not a signal. */
static inline void begin(void) {
  struct rlimit files;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

/* 127.0.0.HOST: there is no way to name an address outside loopback. */
static inline struct sockaddr_in loopback(int host, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(0x7f000000u + (uint32_t)host % 255u);
  return a;
}

static inline void send_at_once(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Writes the JSON object every event of a benchmark carries, SIZE bytes long: a stamp, and a number that runs from 0
 * within its SOURCE. A source is what has an order: one connection that waits for each answer, within one topic. */
static inline size_t write_data(char *out, uint64_t stamp, int source, long number, size_t size) {
  unsigned long long t = stamp;
  size_t n = (size_t)sprintf(out, "{\"t\":%llu,\"s\":%d,\"n\":%ld,\"pad\":\"", t, source, number);
  size_t pad = size > n + 2 ? size - n - 2 : 0;
  memset(out + n, 'x', pad);
  memcpy(out + n + pad, "\"}", 2);
  return n + pad + 2;
}

/* A long option's number, or the end of the program: a bench must not run with a value it did not understand. */
static inline double number(const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (!*text || *end || value < 0) {
    fprintf(stderr, "not a number: %s\n", text);
    exit(2);
  }
  return value;
}

#endif
