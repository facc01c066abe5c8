/* The batch plane's loop in C, inside to outside: what no plane that makes these system calls can beat.
 *
 *     limit -l ADDRESS -p PORT -o OUTSIDE_ADDRESS [-x]
 *
 * Standard input has a line for each association: AID CLIENT PORT REMOTE PORT; the low bits of an AID are its slot. It
 * receives coalesced runs (UDP_GRO), checks every header (RSV, FRAG, the whole AID, source address and port), counts
 * datagrams, octets and drops, takes the header off and sends runs to one destination as one (UDP_SEGMENT). With -x it
 * checks and counts nothing and sends everything where the first association does. Says "ready", ends at SIGTERM and
 * prints its counters.
 */

#include "common.h"
#include <poll.h>

enum { HEADER_OCTETS = 8, BATCH = 64, MAX_SENDS = 4096, MAX_SEGMENTS = 64, OUTSIDE_MTU = 1500, RELAY_BUFFER_OCTETS = 4 << 20 };
enum drop { RUNT, RESERVED_BITS, FRAGMENT, UNKNOWN_AID, WRONG_SOURCE, SEND_FAILED, DROPS };

struct association {
    uint32_t aid; /* 0: a free slot */
    struct endpoint client, remote;
    uint64_t datagrams, octets;
};

static struct association *slots;
static uint32_t slot_count = 1;
static uint64_t relayed, drops[DROPS];
static volatile sig_atomic_t ending;

static void on_signal(int number) {
    (void)number;
    ending = 1;
}

static struct association *read_associations(void) {
    struct association *list = NULL, *first;
    unsigned count = 0, client_port, remote_port, aid;
    char client[64], remote[64];
    while (scanf("%u %63s %u %63s %u", &aid, client, &client_port, remote, &remote_port) == 5) {
        list = realloc(list, (count + 1) * sizeof *list);
        list[count++] = (struct association){
            .aid = aid, .client = endpoint(client, client_port), .remote = endpoint(remote, remote_port)};
    }
    if (!count) exit(2);
    while (slot_count < count) slot_count *= 2;
    slots = calloc(slot_count, sizeof *slots);
    for (unsigned i = 0; i < count; i++) slots[list[i].aid & (slot_count - 1)] = list[i];
    first = &slots[list[0].aid & (slot_count - 1)];
    free(list);
    return first;
}

static struct association *find(const uint8_t *datagram, unsigned octets, const struct endpoint *source) {
    uint32_t aid;
    if (octets < HEADER_OCTETS) return drops[RUNT]++, NULL;
    if (datagram[0]) return drops[RESERVED_BITS]++, NULL;
    if (datagram[1]) return drops[FRAGMENT]++, NULL;
    memcpy(&aid, datagram + 4, sizeof aid);
    aid = ntohl(aid);
    struct association *found = &slots[aid & (slot_count - 1)];
    if (!aid || found->aid != aid) return drops[UNKNOWN_AID]++, NULL;
    if (!same_endpoint(&found->client, source)) return drops[WRONG_SOURCE]++, NULL;
    found->datagrams++;
    found->octets += octets - HEADER_OCTETS;
    return found;
}

/* Runs that wait to be sent. */
static struct {
    struct mmsghdr messages[MAX_SENDS];
    struct iovec parts[MAX_SENDS];
    char controls[MAX_SENDS][CMSG_SPACE(2)] __attribute__((aligned(16)));
    unsigned runs, datagrams;
} pending;
static struct {
    struct endpoint *to;
    unsigned octets, total, closed; /* a shorter datagram is the last of a run */
} current;

static void flush(int outside) {
    for (unsigned i = 0; i < pending.runs; i++) {
        struct msghdr *message = &pending.messages[i].msg_hdr;
        if (message->msg_iovlen > 1) ask_segments(message, pending.controls[i], (unsigned)message->msg_iov->iov_len);
    }
    for (unsigned done = 0; done < pending.runs;) {
        int taken = sendmmsg(outside, pending.messages + done, pending.runs - done, 0);
        if (taken <= 0) {
            drops[SEND_FAILED] += pending.messages[done].msg_hdr.msg_iovlen;
            taken = 1;
        }
        done += (unsigned)taken;
    }
    relayed += pending.datagrams;
    pending.runs = pending.datagrams = 0;
    current.to = NULL;
}

static void queue(struct endpoint *to, uint8_t *payload, unsigned octets, unsigned header_room, int outside) {
    if (pending.datagrams == MAX_SENDS) flush(outside);
    struct msghdr *message = pending.runs ? &pending.messages[pending.runs - 1].msg_hdr : NULL;
    if (current.to != to || current.closed || octets > current.octets || message->msg_iovlen == MAX_SEGMENTS ||
        current.total + octets > MAX_RUN_OCTETS || current.octets + header_room > OUTSIDE_MTU) {
        message = &pending.messages[pending.runs++].msg_hdr;
        *message = (struct msghdr){.msg_name = &to->any, .msg_namelen = to->octets};
        message->msg_iov = &pending.parts[pending.datagrams];
        current.to = to;
        current.octets = octets;
        current.total = 0;
    }
    current.closed = octets < current.octets;
    current.total += octets;
    pending.parts[pending.datagrams++] = (struct iovec){payload, octets};
    message->msg_iovlen++;
}

static uint8_t buffers[BATCH][65536];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static struct endpoint sources[BATCH];
static char controls[BATCH][CMSG_SPACE(sizeof(int))] __attribute__((aligned(16)));

static int receive(int inside) {
    for (unsigned i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], sizeof buffers[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1, .msg_control = controls[i]};
        messages[i].msg_hdr.msg_controllen = sizeof controls[i];
        messages[i].msg_hdr.msg_name = &sources[i].any;
        messages[i].msg_hdr.msg_namelen = sizeof sources[i].v6;
    }
    return recvmmsg(inside, messages, BATCH, MSG_DONTWAIT, NULL);
}

int main(int argc, char **argv) {
    const char *listen = "127.0.0.1", *out = "127.0.0.1";
    unsigned port = 1080, bare = 0;
    for (int option; (option = getopt(argc, argv, "l:p:o:x")) != -1;) switch (option) {
            case 'l': listen = optarg; break;
            case 'p': port = (unsigned)atoi(optarg); break;
            case 'o': out = optarg; break;
            case 'x': bare = 1; break;
            default: return 2;
        }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    struct association *only = read_associations();
    struct endpoint inner = endpoint(listen, port), outer = endpoint(out, 0);
    unsigned room = inner.any.sa_family == AF_INET ? 28 : 48; /* IP and UDP headers */
    int on = 1, size = RELAY_BUFFER_OCTETS, inside = bound_socket(&inner), outside = bound_socket(&outer);
    setsockopt(inside, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* no more than a relay gets */
    if (setsockopt(inside, UDP_LEVEL, UDP_GRO, &on, sizeof on)) fail("UDP_GRO");
    puts("ready");
    fflush(stdout);

    for (struct pollfd wait = {.fd = inside, .events = POLLIN}; !ending;) {
        int taken = receive(inside);
        if (taken < 0 && poll(&wait, 1, -1) < 0) continue;
        for (int i = 0; i < taken; i++) {
            unsigned length = messages[i].msg_len, segment = segment_octets(&messages[i].msg_hdr);
            if (!segment) segment = length ? length : 1;
            for (unsigned offset = 0; offset < length; offset += segment) {
                unsigned octets = length - offset < segment ? length - offset : segment;
                uint8_t *datagram = buffers[i] + offset;
                struct association *to = bare ? only : find(datagram, octets, &sources[i]);
                if (to && octets >= HEADER_OCTETS)
                    queue(&to->remote, datagram + HEADER_OCTETS, octets - HEADER_OCTETS, room, outside);
            }
        }
        if (taken > 0) flush(outside);
    }
    printf("relayed %lu, runt %lu, reserved bits %lu, fragment %lu, unknown AID %lu, wrong source %lu, send failed %lu\n",
           relayed, drops[RUNT], drops[RESERVED_BITS], drops[FRAGMENT], drops[UNKNOWN_AID], drops[WRONG_SOURCE],
           drops[SEND_FAILED]);
    return 0;
}
