/* Counts marked datagrams, and how long they took.
 *
 *     sink -i LOAD -k SKIP_OCTETS -f FLOWS [-w PAUSE_US] [-g]     -g: takes coalesced receives (UDP_GRO)
 *
 * Standard input has a line for each socket: ADDRESS PORT, and one with a dot behind them. Says "ready" and counts. A
 * line with a number says how many were sent: it ends when so many are here, or when nothing has come for a while, and
 * prints one line of JSON. A pause between receives makes them larger and cheaper; without one it sleeps in the kernel
 * and is woken by a datagram, for latency.
 */

#include "common.h"
#include <sys/epoll.h>

enum { BATCH = 128, QUIET_MS = 250, MAX_DRAIN_MS = 3000, STEPS = 32, SCALES = 40 };
#define STANDARD_INPUT UINT32_MAX


struct listener {
    int descriptor;
    uint64_t *expected; /* by flow: the lowest sequence number that is in order */
};

static struct listener *listeners;
static unsigned listener_count, skip_octets, flow_count = 1;
static uint32_t load_id;
static uint64_t received, octets_received, foreign, disordered, first_ns, last_ns;
static uint64_t histogram[SCALES][STEPS]; /* latency: by power of two of ns, in equal steps */

static void note_latency(uint64_t ns) {
    unsigned scale = 0;
    while (ns >> scale >= 2 * STEPS && scale < SCALES - 2) scale++;
    unsigned row = ns < STEPS ? 0 : scale + 1, step = ns < STEPS ? (unsigned)ns : (unsigned)(ns >> scale) - STEPS;
    histogram[row][step < STEPS ? step : STEPS - 1]++;
}

static double latency_us(double part) {
    uint64_t wanted = (uint64_t)(part * (double)received), seen = 0;
    for (unsigned row = 0; row < SCALES; row++)
        for (unsigned step = 0; step < STEPS; step++)
            if (histogram[row][step] && (seen += histogram[row][step]) > wanted)
                return (double)(row ? (uint64_t)(step + STEPS) << (row - 1) : step) / 1e3;
    return 0;
}

static void count(struct listener *listener, const uint8_t *datagram, unsigned octets, uint64_t now) {
    struct mark mark;
    if (octets < skip_octets + sizeof mark) {
        foreign++;
        return;
    }
    memcpy(&mark, datagram + skip_octets, sizeof mark);
    if (mark.load != load_id || mark.flow >= flow_count) {
        foreign++;
        return;
    }
    if (!received++) first_ns = now;
    last_ns = now;
    octets_received += octets - skip_octets;
    uint64_t *expected = &listener->expected[mark.flow];
    disordered += mark.sequence < *expected;
    if (mark.sequence >= *expected) *expected = mark.sequence + 1;
    note_latency(now > mark.sent_ns ? now - mark.sent_ns : 0);
}

static uint8_t buffers[BATCH][65536];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static char controls[BATCH][CMSG_SPACE(sizeof(int))] __attribute__((aligned(16)));

static void drain(struct listener *listener, int coalesced) {
    for (int taken = BATCH; taken == BATCH;) {
        for (unsigned i = 0; i < BATCH; i++)
            if (coalesced) {
                messages[i].msg_hdr.msg_control = controls[i];
                messages[i].msg_hdr.msg_controllen = sizeof controls[i];
            }
        taken = recvmmsg(listener->descriptor, messages, BATCH, MSG_DONTWAIT, NULL);
        uint64_t now = now_ns();
        for (int i = 0; i < taken; i++) {
            unsigned length = messages[i].msg_len, segment = coalesced ? segment_octets(&messages[i].msg_hdr) : 0;
            if (!segment) segment = length ? length : 1;
            for (unsigned offset = 0; offset < length; offset += segment)
                count(listener, buffers[i] + offset, length - offset < segment ? length - offset : segment, now);
        }
    }
}

static void open_listeners(int poll, int coalesced) {
    char line[128], address[64];
    unsigned port;
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%63s %u", address, &port) == 2) {
        struct endpoint local = endpoint(address, port);
        listeners = realloc(listeners, (listener_count + 1) * sizeof *listeners);
        uint64_t *expected = calloc(flow_count, sizeof *expected);
        listeners[listener_count++] = (struct listener){.descriptor = bound_socket(&local), .expected = expected};
        int on = 1, descriptor = listeners[listener_count - 1].descriptor;
        if (coalesced && setsockopt(descriptor, UDP_LEVEL, UDP_GRO, &on, sizeof on)) fail("UDP_GRO");
    }
    for (unsigned i = 0; i < listener_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, listeners[i].descriptor, &event)) fail("epoll_ctl");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STANDARD_INPUT};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("epoll_ctl");
}

/* How many were sent; 0, which ends it, when nobody will say. */
static uint64_t read_sent(void) {
    char line[32] = "";
    return read(STDIN_FILENO, line, sizeof line - 1) > 0 ? strtoull(line, NULL, 10) : 0;
}

int main(int argc, char **argv) {
    int coalesced = 0, poll = epoll_create1(EPOLL_CLOEXEC);
    unsigned pause_us = 0;
    for (int option; (option = getopt(argc, argv, "i:k:f:w:g")) != -1;) switch (option) {
            case 'i': load_id = (uint32_t)strtoul(optarg, NULL, 10); break;
            case 'k': skip_octets = (unsigned)atoi(optarg); break;
            case 'f': flow_count = (unsigned)atoi(optarg); break;
            case 'w': pause_us = (unsigned)atoi(optarg); break;
            case 'g': coalesced = 1; break;
            default: return 2;
        }
    allow_many_descriptors();
    for (unsigned i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], sizeof buffers[i]};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    if (!flow_count || flow_count > MAX_FLOWS) return 2;
    open_listeners(poll, coalesced);
    puts("ready");
    fflush(stdout);

    static struct epoll_event events[256];
    uint64_t told = 0, sent = UINT64_MAX;
    while (received < sent) {
        int count = epoll_wait(poll, events, 256, QUIET_MS);
        if (told && (count == 0 || now_ns() > told + MAX_DRAIN_MS * 1000000ull)) break;
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != STANDARD_INPUT) {
                drain(&listeners[events[i].data.u32], coalesced);
                continue;
            }
            sent = read_sent();
            told = now_ns();
            epoll_ctl(poll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        }
        if (pause_us) usleep(pause_us);
    }
    printf("{\"received\": %lu, \"octets\": %lu, \"foreign\": %lu, \"disordered\": %lu, \"seconds\": %.6f, "
           "\"cpu_s\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f}\n",
           received, octets_received, foreign, disordered, (double)(last_ns - first_ns) / 1e9, cpu_s(), latency_us(.5), latency_us(.99), latency_us(.999));
    return 0;
}
