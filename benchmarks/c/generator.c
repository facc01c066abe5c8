/* Sends marked datagrams: paced, or as fast as it can.
 *
 *     generator -p PAYLOAD_OCTETS -n RUN -r RATE -t SECONDS -i LOAD     RATE 0: a flood
 *
 * Standard input has a line for each flow: SOURCE PORT TO PORT HEADER, the header in hexadecimal or "-". Flows take
 * turns, RUN datagrams each; flows of one source share a socket. A run is one send (UDP_SEGMENT). Prints one line of
 * JSON.
 */

#include "common.h"
#include <sys/prctl.h>

enum { BATCH = 64, TICK_NS = 100000, LAG_NS = 2000000 };

struct flow {
    struct endpoint to;
    int source; /* index of a socket */
    unsigned header_octets;
    uint8_t header[MAX_HEADER_OCTETS];
};

struct source {
    struct endpoint local, to;
    int descriptor, varies; /* in where it sends to */
};

static struct flow *flows;
static struct source *sources;
static unsigned flow_count, source_count;
static unsigned payload_octets = 64, run = 1;
static uint32_t load_id;

static int source_of(const struct endpoint *local, const struct endpoint *to) {
    /* flows of a source stand together */
    if (!source_count || !same_endpoint(&sources[source_count - 1].local, local)) {
        sources = realloc(sources, (source_count + 1) * sizeof *sources);
        sources[source_count++] = (struct source){.local = *local, .to = *to, .descriptor = bound_socket(local)};
    }
    struct source *source = &sources[source_count - 1];
    source->varies |= !same_endpoint(&source->to, to);
    return (int)source_count - 1;
}

static void read_flows(void) {
    char from[64], to[64], header[128];
    unsigned from_port, to_port;
    while (scanf("%63s %u %63s %u %127s", from, &from_port, to, &to_port, header) == 5) {
        flows = realloc(flows, (flow_count + 1) * sizeof *flows);
        struct flow *flow = &flows[flow_count++];
        struct endpoint local = endpoint(from, from_port);
        flow->to = endpoint(to, to_port);
        flow->source = source_of(&local, &flow->to);
        flow->header_octets = unhex(header, flow->header);
    }
    for (unsigned i = 0; i < source_count; i++) /* saves the kernel a route lookup each */
        if (!sources[i].varies && connect(sources[i].descriptor, &sources[i].to.any, sources[i].to.octets))
            fail("connect");
}

struct slot {
    uint8_t *octets;
    struct iovec part;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2)];
};

static struct slot slots[BATCH];
static struct mmsghdr messages[BATCH];

static void fill(unsigned index, struct flow *flow, uint64_t sequence, uint64_t now) {
    struct slot *slot = &slots[index];
    struct msghdr *message = &messages[index].msg_hdr;
    unsigned octets = flow->header_octets + payload_octets;
    for (unsigned i = 0; i < run; i++) {
        uint8_t *datagram = slot->octets + i * octets;
        struct mark mark = {.load = load_id, .flow = (uint32_t)(flow - flows), .sequence = sequence + i, .sent_ns = now};
        memcpy(datagram, flow->header, flow->header_octets);
        memcpy(datagram + flow->header_octets, &mark, sizeof mark);
    }
    slot->part = (struct iovec){slot->octets, run * octets};
    *message = (struct msghdr){.msg_iov = &slot->part, .msg_iovlen = 1};
    if (sources[flow->source].varies) {
        message->msg_name = &flow->to.any;
        message->msg_namelen = flow->to.octets;
    }
    if (run > 1) ask_segments(message, slot->control, octets);
}

/* As many messages as may be due, all of one source; how many the kernel took. */
static unsigned send_batch(unsigned *next, unsigned due, uint64_t sequence, uint64_t now, uint64_t *errors) {
    unsigned count = 0;
    int source = flows[*next].source;
    while (count < due && count < BATCH && flows[*next].source == source) {
        fill(count, &flows[*next], sequence + (uint64_t)count * run, now);
        *next = (*next + 1) % flow_count;
        count++;
    }
    int taken = sendmmsg(sources[source].descriptor, messages, count, 0);
    if (taken < (int)count) { /* those not taken are given up: their flows are not due again at once */
        ++*errors;
        if (taken < 0) taken = 0;
    }
    return (unsigned)taken;
}

static void sleep_until(uint64_t when) {
    struct timespec time = {(time_t)(when / 1000000000u), (long)(when % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

int main(int argc, char **argv) {
    double rate = 0, seconds = 1;
    for (int option; (option = getopt(argc, argv, "p:n:r:t:i:")) != -1;) switch (option) {
            case 'p': payload_octets = (unsigned)atoi(optarg); break;
            case 'n': run = (unsigned)atoi(optarg); break;
            case 'r': rate = atof(optarg); break;
            case 't': seconds = atof(optarg); break;
            case 'i': load_id = (uint32_t)strtoul(optarg, NULL, 10); break;
            default: return 2;
        }
    allow_many_descriptors();
    prctl(PR_SET_TIMERSLACK, 1); /* ns */
    read_flows();
    if (!flow_count || flow_count > MAX_FLOWS || payload_octets < sizeof(struct mark) || !run || run > 64 ||
        run * (payload_octets + MAX_HEADER_OCTETS) > MAX_RUN_OCTETS)
        return fprintf(stderr, "no flows, too many, or a run of this size cannot be sent\n"), 2;
    for (unsigned i = 0; i < BATCH; i++) slots[i].octets = calloc(run, payload_octets + MAX_HEADER_OCTETS);

    uint64_t sent = 0, errors = 0, begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), pace = begun;
    double paced = 0; /* datagrams due since `pace` that were taken */
    unsigned next = 0;
    for (uint64_t now; (now = now_ns()) < end;) {
        unsigned due = BATCH;
        if (rate > 0) {
            if (now > pace + (uint64_t)(paced * 1e9 / rate) + LAG_NS) { /* held up: no burst to make up for it */
                pace = now;
                paced = 0;
            }
            uint64_t when = pace + (uint64_t)(paced * 1e9 / rate);
            if (now < when) { /* small sends at a high rate would cost more than they send */
                int spaced = run * 1e9 / rate >= TICK_NS / 2;
                sleep_until(spaced || when > now + TICK_NS ? when : now + TICK_NS);
                continue;
            }
            due = 1 + (unsigned)((double)(now - when) * rate / 1e9 / run);
        }
        unsigned taken = send_batch(&next, due, sent, now, &errors);
        sent += (uint64_t)taken * run;
        paced += (double)(taken ? taken : 1) * run;
    }
    printf("{\"sent\": %lu, \"seconds\": %.6f, \"errors\": %lu, \"cpu_s\": %.6f}\n", sent, (double)(now_ns() - begun) / 1e9,
           errors, cpu_s());
    return 0;
}
