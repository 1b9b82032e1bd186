/* reference.c - the physical limit: what one bare C process needs to do a chat's work.
 *
 *     cc -O2 -o reference reference.c && ./reference PORT LOGFILE KEYFILE
 *
 * One epoll loop: read lines, write() them to a file, send() them to everybody.  The
 * log-in is classic's (128 digits), and so is the answer (the last lines of the log).
 * Nothing of what makes papaya-pool a chat server is here: no seq, no time, no names,
 * no lock that others can join, one process that takes everybody with it.  So nobody
 * can be much cheaper, and tools/bench prints what it measures as ratios to this.
 *
 * Members who read slowly get what they missed from a ring of the newest bytes; who
 * falls further behind than that is closed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEY_DIGITS = 128, BATCH = 1 << 20, HISTORY = 1024, AT_ONCE = 256 };
static const uint64_t RING = 16 << 20;

typedef struct {
    int fd, admitted, blocked; /* blocked: waiting for room to send in */
    int place;                 /* in `everybody` */
    uint64_t position;         /* how many bytes of all that was said it was sent */
    int held;                  /* bytes of a line or a key that is not whole yet */
    char input[8192];
} Member;

static char key[KEY_DIGITS], batch[BATCH], *ring;
static size_t batch_size;
static uint64_t said; /* bytes, in all */
static Member **everybody;
static int members, room;
static int poll_fd, log_fd, listener;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* --- members ------------------------------------------------------------------- */

static void drop(Member *member)
{
    if (member->admitted) {
        everybody[member->place] = everybody[--members];
        everybody[member->place]->place = member->place;
    }
    close(member->fd);
    free(member);
}

static void admit(Member *member)
{
    if (members == room) {
        room = room ? 2 * room : 64;
        if (!(everybody = realloc(everybody, room * sizeof *everybody)))
            fail("realloc");
    }
    member->admitted = 1;
    member->position = said;
    member->place = members;
    everybody[members++] = member;
    char last[HISTORY];
    off_t size = lseek(log_fd, 0, SEEK_END);
    off_t begin = size > HISTORY ? size - HISTORY : 0;
    ssize_t got = pread(log_fd, last, size - begin, begin);
    char *line = begin ? memchr(last, '\n', got) : last - 1;
    if (line && got > line + 1 - last)
        send(member->fd, line + 1, last + got - (line + 1), MSG_NOSIGNAL);
}

static void watch(Member *member, int for_room)
{
    member->blocked = for_room;
    struct epoll_event event = {EPOLLIN | (for_room ? EPOLLOUT : 0), {.ptr = member}};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, member->fd, &event);
}

/* Send what it has not been sent.  Returns 0 if that was its end. */
static int catch_up(Member *member)
{
    if (said - member->position > RING) {
        drop(member);
        return 0;
    }
    while (member->position < said) {
        /* The ring is mapped twice, end to end, so nothing in it is ever in two parts. */
        ssize_t sent = send(member->fd, ring + member->position % RING,
                            said - member->position, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            if (!member->blocked)
                watch(member, 1);
            return 1;
        }
        if (sent < 0) {
            drop(member);
            return 0;
        }
        member->position += sent;
    }
    if (member->blocked)
        watch(member, 0);
    return 1;
}

/* --- what they say ------------------------------------------------------------- */

static void publish(void)
{
    if (write(log_fd, batch, batch_size) != (ssize_t)batch_size)
        fail("writing the log");
    memcpy(ring + said % RING, batch, batch_size);
    said += batch_size;
    batch_size = 0;
    for (int i = members - 1; i >= 0; i--) /* backwards: drop() fills holes from behind */
        if (!everybody[i]->blocked)
            catch_up(everybody[i]);
}

static void hear(Member *member)
{
    ssize_t got = recv(member->fd, member->input + member->held,
                       sizeof member->input - member->held, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(member);
        return;
    }
    member->held += got;
    char *begin = member->input, *end = begin + member->held;
    if (!member->admitted) {
        if (member->held < KEY_DIGITS)
            return;
        if (memcmp(begin, key, KEY_DIGITS)) {
            drop(member);
            return;
        }
        begin += KEY_DIGITS;
        admit(member);
    }
    char *newline = memrchr(begin, '\n', end - begin);
    if (newline) {
        size_t size = newline + 1 - begin;
        if (batch_size + size > sizeof batch)
            publish();
        memcpy(batch + batch_size, begin, size);
        batch_size += size;
        begin = newline + 1;
    }
    member->held = end - begin;
    memmove(member->input, begin, member->held);
    if (member->held == sizeof member->input)
        drop(member); /* a line without an end */
}

static void accept_some(void)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Member *member = calloc(1, sizeof *member);
        if (!member)
            fail("calloc");
        member->fd = fd;
        struct epoll_event event = {EPOLLIN, {.ptr = member}};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

/* --- the program --------------------------------------------------------------- */

static void map_ring(void)
{
    int memory = memfd_create("ring", 0);
    if (memory < 0 || ftruncate(memory, RING))
        fail("ring");
    ring = mmap(NULL, 2 * RING, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 2; i++)
        if (mmap(ring + i * RING, RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 memory, 0) == MAP_FAILED)
            fail("ring");
}

static void bind_port(int port)
{
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)
        || getsockname(listener, (void *)&address, &size))
        fail("port");
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    printf("reference ready host=127.0.0.1 port=%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    FILE *file;
    if (argc != 4) {
        fprintf(stderr, "usage: reference PORT LOGFILE KEYFILE   (PORT 0 picks one)\n");
        return 2;
    }
    if (!(file = fopen(argv[3], "r")) || fread(key, KEY_DIGITS, 1, file) != 1)
        fail(argv[3]);
    fclose(file);
    log_fd = open(argv[2], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (log_fd < 0 || poll_fd < 0)
        fail(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    map_ring();
    bind_port(atoi(argv[1]));
    struct epoll_event events[AT_ONCE];
    for (;;) {
        int ready = epoll_wait(poll_fd, events, AT_ONCE, -1);
        for (int i = 0; i < ready; i++) {
            Member *member = events[i].data.ptr;
            if (!member)
                accept_some();
            else if (!(events[i].events & EPOLLOUT) || catch_up(member))
                if (events[i].events & ~EPOLLOUT)
                    hear(member);
        }
        if (batch_size)
            publish();
    }
}
