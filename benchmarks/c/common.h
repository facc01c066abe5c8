/* What generator, sink and limit loop share: addresses, the clock, and the first octets of every payload. */

#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT /* linux/udp.h; netinet/udp.h lacks them before glibc 2.33 */
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif
#define UDP_LEVEL IPPROTO_UDP

enum { MAX_RUN_OCTETS = 65000, MAX_HEADER_OCTETS = 32, BUFFER_OCTETS = 8 << 20, MAX_DESCRIPTORS = 131072, MAX_FLOWS = 65536 };

/* The first octets of a payload, in the byte order of this machine. */
struct mark {
    uint32_t load; /* datagrams of another load are not counted */
    uint32_t flow;
    uint64_t sequence;
    uint64_t sent_ns;
};

struct endpoint {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
    socklen_t octets;
};

static inline void fail(const char *what) {
    perror(what);
    exit(2);
}

static inline uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static inline struct endpoint endpoint(const char *host, unsigned port) {
    struct endpoint found = {.octets = sizeof found.v4};
    if (inet_pton(AF_INET, host, &found.v4.sin_addr) == 1) {
        found.v4.sin_family = AF_INET;
        found.v4.sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &found.v6.sin6_addr) == 1) {
        found.v6.sin6_family = AF_INET6;
        found.v6.sin6_port = htons((uint16_t)port);
        found.octets = sizeof found.v6;
    } else {
        fprintf(stderr, "%s is not an address\n", host);
        exit(2);
    }
    return found;
}

static inline int same_endpoint(const struct endpoint *one, const struct endpoint *other) {
    if (one->any.sa_family != other->any.sa_family || one->v4.sin_port != other->v4.sin_port) return 0;
    if (one->any.sa_family == AF_INET) return one->v4.sin_addr.s_addr == other->v4.sin_addr.s_addr;
    return memcmp(&one->v6.sin6_addr, &other->v6.sin6_addr, sizeof one->v6.sin6_addr) == 0;
}

/* A bound socket with buffers as large as root may have them: the ends must not be where datagrams are lost. */
static inline int bound_socket(const struct endpoint *local) {
    int size = BUFFER_OCTETS, descriptor = socket(local->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail("socket");
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    if (bind(descriptor, &local->any, local->octets)) fail("bind");
    return descriptor;
}

static inline void allow_many_descriptors(void) {
    struct rlimit limit = {MAX_DESCRIPTORS, MAX_DESCRIPTORS};
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Hexadecimal digits to octets; "-" is none. */
static inline unsigned unhex(const char *digits, uint8_t *octets) {
    unsigned count = 0, value;
    while (*digits != '-' && count < MAX_HEADER_OCTETS && sscanf(digits, "%2x", &value) == 1) {
        octets[count++] = (uint8_t)value;
        digits += 2;
    }
    return count;
}

/* The segment size of a coalesced receive, else 0. */
static inline unsigned segment_octets(struct msghdr *message) {
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item))
        if (item->cmsg_level == UDP_LEVEL && item->cmsg_type == UDP_GRO) {
            int octets;
            memcpy(&octets, CMSG_DATA(item), sizeof octets);
            return (unsigned)octets;
        }
    return 0;
}

/* Ask for a send to be cut into datagrams of this size; `control` has room for CMSG_SPACE(2). */
static inline void ask_segments(struct msghdr *message, void *control, unsigned octets) {
    uint16_t value = (uint16_t)octets;
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(sizeof value);
    struct cmsghdr *item = CMSG_FIRSTHDR(message);
    item->cmsg_level = UDP_LEVEL;
    item->cmsg_type = UDP_SEGMENT;
    item->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(item), &value, sizeof value);
}

#endif
