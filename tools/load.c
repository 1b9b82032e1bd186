/* load.c - the hot half of tools/load.py: talk as n members, and check what they hear.
 *
 * It is given connections that are logged in already, so it speaks no dialect: it sends
 * lines and looks for its own lines in what comes, whatever a server puts before them.
 *
 *     cc -O2 -o load load.c
 *     load SENDERS SIZE        (what load.py starts; the rest is on stdin and stdout)
 *
 * stdin:  the descriptors, as decimals on one line; then a phase a line:
 *           lat RATE SECONDS     RATE messages a second in all, on time (open loop)
 *           thr WINDOW SECONDS   WINDOW messages under way for each sender (closed loop)
 * stdout: one JSON object for each phase, when everything has arrived, or nothing more.
 *
 * A line is `@` sender(2) seq(8) time(16) filler `!`, the numbers in hex; the time is
 * when it should have been sent, so that a late sender is no excuse for the server.
 * Every (receiver, sender) pair is checked: lost, doubled, out of order, torn. */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 27, MAX_SIZE = 4096, READ_SIZE = 1 << 20, SAMPLE = 16, MAX_SENDERS = 64 };
enum { SUB = 64, BUCKETS = 60 * SUB }; /* of the latency histogram: 1.6 % wide */
static const uint64_t SECOND = 1000000000;
static const uint64_t PATIENCE = 2000000000; /* without any delivery: it was lost */

typedef struct {
    uint32_t next;   /* the seq that is expected */
    uint64_t missed; /* bit i: next - 1 - i was jumped over */
} Pair;

typedef struct {
    int fd, closed, waiting; /* waiting: for room to send in */
    char *partial;           /* the beginning of a line */
    int partial_size;
    char *out; /* what is still to be sent */
    size_t out_begin, out_end, out_room;
    uint64_t last, silence; /* when it last heard something; its longest silence */
    Pair *pairs;            /* by sender */
} Member;

static Member *members;
static int count, senders, size, poll_fd;
static char *buffer; /* READ_SIZE, and room for a partial line before it */
static uint32_t sent[MAX_SENDERS];
static uint64_t heard[MAX_SENDERS]; /* deliveries of a sender's messages */
static uint64_t deliveries, gaps, doubled, disordered, torn, closed, bytes_in;
static uint64_t histogram[BUCKETS], samples, slowest, now;
static int sample_all;

static uint64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* --- latency ------------------------------------------------------------------- */

static void note_latency(uint64_t ns)
{
    int exponent = ns < SUB ? 0 : 63 - __builtin_clzll(ns) - 5;
    int bucket = exponent * SUB / 2 + (int)(ns >> exponent); /* upper halves only */
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    samples++;
    if (ns > slowest)
        slowest = ns;
}

static double bucket_us(int bucket)
{
    int exponent = bucket < SUB ? 0 : (bucket - SUB) / (SUB / 2) + 1;
    return (double)((uint64_t)(bucket - exponent * SUB / 2) << exponent) / 1e3;
}

static double quantile_us(double q)
{
    uint64_t seen = 0, wanted = (uint64_t)(q * samples);
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > wanted)
            return bucket_us(i);
    return slowest / 1e3;
}

/* --- what comes ---------------------------------------------------------------- */

static uint64_t digit_of[256]; /* of what is no digit: NO_DIGIT */
static const uint64_t NO_DIGIT = 1ull << 63;

static inline uint64_t read_hex(const char *text, int digits)
{
    uint64_t value = 0, bad = 0;
    for (int i = 0; i < digits; i++) {
        uint64_t digit = digit_of[(unsigned char)text[i]];
        bad |= digit;
        value = value << 4 | (digit & 15);
    }
    return value | (bad & NO_DIGIT);
}

/* One of our own lines has arrived, without what the server put before it. */
static void deliver(Member *member, const char *line)
{
    uint64_t sender = read_hex(line + 1, 2), seq = read_hex(line + 3, 8);
    if (sender >= (uint64_t)senders || seq >= sent[sender]) {
        torn++;
        return;
    }
    Pair *pair = &member->pairs[sender];
    if (seq == pair->next) {
        pair->next++;
        pair->missed <<= 1;
    } else if (seq > pair->next) {
        uint64_t jump = seq - pair->next;
        gaps += jump;
        uint64_t jumped = (1ull << (jump & 63)) - 1;
        pair->missed = jump >= 63 ? ~1ull : (pair->missed << jump | jumped) << 1;
        pair->next = seq + 1;
    } else {
        uint64_t back = pair->next - 1 - seq;
        if (back > 63 || !(pair->missed >> back & 1)) {
            doubled++;
            return;
        }
        pair->missed &= ~(1ull << back);
        disordered++;
        gaps--;
    }
    heard[sender]++;
    deliveries++;
    if (sample_all || !(deliveries % SAMPLE)) {
        uint64_t stamp = read_hex(line + 11, 16);
        if (stamp & NO_DIGIT)
            torn++;
        else
            note_latency(now > stamp ? now - stamp : 0);
    }
}

static void close_member(Member *member)
{
    member->closed = 1;
    closed++;
    epoll_ctl(poll_fd, EPOLL_CTL_DEL, member->fd, NULL);
}

static int is_ours(const char *end)
{
    return end[-1] == '!' && end[-size] == '@';
}

static void read_member(Member *member)
{
    static int length; /* of the last line: the next one's, most of the time */
    char *begin = buffer - member->partial_size;
    memcpy(begin, member->partial, member->partial_size);
    ssize_t got = recv(member->fd, buffer, READ_SIZE, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        close_member(member);
        return;
    }
    bytes_in += got;
    char *end = buffer + got;
    while (begin < end) {
        char *stop = begin + length;
        if (!length || stop >= end || *stop != '\n' || !is_ours(stop)) {
            stop = memchr(begin, '\n', end - begin);
            char *nul = memchr(begin, 0, (stop ? stop : end) - begin);
            if (nul)
                stop = nul; /* classic ends its sends so */
            if (!stop)
                break;
        }
        length = stop - begin;
        if (length >= size && is_ours(stop))
            deliver(member, stop - size);
        else if (length)
            torn++;
        begin = stop + 1;
    }
    member->partial_size = end - begin;
    if (member->partial_size > MAX_SIZE + 256) {
        torn++;
        member->partial_size = 0;
    }
    memcpy(member->partial, begin, member->partial_size);
    if (now - member->last > member->silence)
        member->silence = now - member->last;
    member->last = now;
}

/* --- what goes ----------------------------------------------------------------- */

static void watch(Member *member, int for_room)
{
    if (member->waiting == for_room)
        return;
    member->waiting = for_room;
    struct epoll_event event = {EPOLLIN | (for_room ? EPOLLOUT : 0), {.ptr = member}};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, member->fd, &event);
}

static void flush_member(Member *member)
{
    while (!member->closed && member->out_begin < member->out_end) {
        size_t size_left = member->out_end - member->out_begin;
        ssize_t put = send(member->fd, member->out + member->out_begin, size_left,
                           MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && errno == EAGAIN) {
            watch(member, 1);
            return;
        }
        if (put < 0)
            close_member(member);
        else
            member->out_begin += put;
    }
    member->out_begin = member->out_end = 0;
    if (!member->closed)
        watch(member, 0);
}

static void say(int sender, uint64_t stamp)
{
    Member *member = &members[sender];
    if (member->out_end + size + 1 > member->out_room) {
        member->out_room = 2 * member->out_room + size + 1;
        if (!(member->out = realloc(member->out, member->out_room)))
            fail("realloc");
    }
    char *line = member->out + member->out_end, head[HEAD + 1];
    snprintf(head, sizeof head, "@%02x%08x%016llx", sender, sent[sender]++,
             (unsigned long long)stamp);
    memcpy(line, head, HEAD);
    memset(line + HEAD, '.', size - HEAD - 1);
    line[size - 1] = '!';
    line[size] = '\n';
    member->out_end += size + 1;
}

static void turn(uint64_t pause)
{
    static struct epoll_event events[512];
    struct timespec timeout = {pause / SECOND, pause % SECOND};
    int ready = epoll_pwait2(poll_fd, events, 512, &timeout, NULL);
    for (int i = 0; i < ready; i++) {
        Member *member = events[i].data.ptr;
        now = clock_now();
        if (events[i].events & EPOLLOUT)
            flush_member(member);
        if (!member->closed && events[i].events & ~EPOLLOUT)
            read_member(member);
    }
}

/* --- phases -------------------------------------------------------------------- */

static uint64_t begin_time;
static uint32_t sent_before[MAX_SENDERS];
static uint64_t heard_before[MAX_SENDERS];

static uint64_t expected(void)
{
    uint64_t all = 0;
    for (int s = 0; s < senders; s++)
        all += (uint64_t)(sent[s] - sent_before[s]) * count;
    return all;
}

static void paced(double rate, uint64_t end)
{
    uint64_t due = begin_time, gap = (uint64_t)(SECOND / rate);
    int sender = 0;
    while ((now = clock_now()) < end) {
        for (; due <= now; due += gap) {
            say(sender, due);
            flush_member(&members[sender]);
            sender = (sender + 1) % senders;
        }
        now = clock_now();
        turn(due > now ? (due < end ? due : end) - now : 0);
    }
}

static void saturated(uint32_t window, uint64_t end)
{
    uint64_t last_change = begin_time, seen = deliveries;
    while ((now = clock_now()) < end && now - last_change < PATIENCE) {
        for (int s = 0; s < senders; s++) {
            uint32_t through = (uint32_t)((heard[s] - heard_before[s]) / count);
            uint32_t away = sent[s] - sent_before[s] - through;
            if (away >= window || members[s].out_end)
                continue;
            for (; away < window; away++)
                say(s, now);
            flush_member(&members[s]);
        }
        turn(20 * SECOND / 1000);
        if (deliveries != seen)
            seen = deliveries, last_change = now;
    }
}

static void report(const char *kind, double argument, double seconds, uint64_t before,
                   uint64_t in_time, const uint64_t bad[6])
{
    uint64_t messages = 0, through = deliveries - before;
    for (int s = 0; s < senders; s++)
        messages += sent[s] - sent_before[s];
    printf("{\"kind\": \"%s\", \"argument\": %g, \"seconds\": %.4f, \"messages\": %llu, "
           "\"deliveries\": %llu, \"deliveries_s\": %.1f, \"bytes\": %llu, ",
           kind, argument, seconds, (unsigned long long)messages,
           (unsigned long long)through, in_time / seconds,
           (unsigned long long)(bytes_in - bad[5]));
    printf("\"lost\": %lld, \"doubled\": %llu, \"out_of_order\": %llu, \"torn\": %llu, "
           "\"closed\": %llu, ",
           (long long)(expected() - through), (unsigned long long)(doubled - bad[1]),
           (unsigned long long)(disordered - bad[2]), (unsigned long long)(torn - bad[3]),
           (unsigned long long)(closed - bad[4]));
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"silence_ms\": [",
           quantile_us(0.50), quantile_us(0.99), slowest / 1e3);
    for (int i = 0; i < count; i++)
        printf("%s%.1f", i ? ", " : "", members[i].silence / 1e6);
    printf("]}\n");
    fflush(stdout);
}

static void run_phase(const char *kind, double argument, double seconds)
{
    int is_paced = !strcmp(kind, "lat");
    uint64_t bad[6] = {gaps, doubled, disordered, torn, closed, bytes_in};
    uint64_t before = deliveries;
    memset(histogram, 0, sizeof histogram);
    samples = slowest = 0;
    sample_all = is_paced;
    memcpy(sent_before, sent, sizeof sent);
    memcpy(heard_before, heard, sizeof heard);
    now = begin_time = clock_now();
    for (int i = 0; i < count; i++)
        members[i].last = begin_time, members[i].silence = 0;
    uint64_t end = begin_time + (uint64_t)(seconds * SECOND);
    if (is_paced)
        paced(argument, end);
    else
        saturated((uint32_t)argument, end);
    double took = (clock_now() - begin_time) / (double)SECOND;
    uint64_t in_time = deliveries - before, seen = deliveries, last_change = clock_now();
    while (deliveries - before < expected() && clock_now() - last_change < PATIENCE) {
        turn(20 * SECOND / 1000);
        if (deliveries != seen)
            seen = deliveries, last_change = clock_now();
    }
    report(kind, argument, took, before, in_time, bad);
}

static void take_members(void)
{
    size_t room = 64;
    if (!(members = malloc(room * sizeof *members)))
        fail("malloc");
    for (int fd, last = 0; !last && scanf("%d", &fd) == 1;) {
        last = getchar() == '\n';
        if ((size_t)count == room)
            members = realloc(members, (room *= 2) * sizeof *members);
        if (!members)
            fail("realloc");
        members[count] = (Member){.fd = fd};
        count++;
    }
    for (int i = 0; i < count; i++) { /* only now: realloc moves them */
        Member *member = &members[i];
        member->partial = malloc(MAX_SIZE + 512);
        member->pairs = calloc(senders, sizeof(Pair));
        struct epoll_event event = {EPOLLIN, {.ptr = member}};
        if (!member->partial || !member->pairs
            || epoll_ctl(poll_fd, EPOLL_CTL_ADD, member->fd, &event))
            fail("taking a connection");
    }
}

int main(int argc, char **argv)
{
    if (argc != 3 || (senders = atoi(argv[1])) < 1 || senders > MAX_SENDERS
        || (size = atoi(argv[2]) - 1) <= HEAD || size >= MAX_SIZE) {
        fprintf(stderr, "usage: load SENDERS SIZE   (SIZE: %d to %d, newline included)\n",
                HEAD + 2, MAX_SIZE);
        return 2;
    }
    for (int i = 0; i < 256; i++)
        digit_of[i] = NO_DIGIT;
    for (int i = 0; i < 16; i++)
        digit_of[(int)"0123456789abcdef"[i]] = i;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1); /* else a paced send is 50 us late */
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    char *memory = malloc(MAX_SIZE + 1024 + READ_SIZE);
    if (poll_fd < 0 || !memory)
        fail("starting");
    buffer = memory + MAX_SIZE + 1024;
    take_members();
    if (count < senders) {
        fprintf(stderr, "load: fewer members than senders\n");
        return 2;
    }
    char kind[8];
    for (double argument, seconds; scanf("%7s %lf %lf", kind, &argument, &seconds) == 3;)
        run_phase(kind, argument, seconds);
    return 0;
}
