/*
 * An SMTP server that counts and keeps nothing: the far end of the benchmark, fast enough never to be its limit.
 *
 *     sink [--port N] [--control N] [--delay MS]
 *
 * One process, one epoll loop, no threads, no storage. Prints "PORT CONTROL_PORT" once it listens on 127.0.0.1, and
 * ends with its parent. The control port takes "stats", "histogram" and "reset", a line each, and answers each with
 * a line of JSON.
 */
#define _GNU_SOURCE
#define IGNORED __attribute__((unused))
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST_LINE = 2048, INPUT = 256 * 1024, EVENTS = 256, MOST_DOMAINS = 64, MOST_SECONDS = 4 * 3600 };
static const uint64_t SECOND = 1000000000;
static const char DOT[] = "\r\n.\r\n";
enum { DOT_LENGTH = 5 };

struct connection;

/* `run` may be missing, or give the reply itself. The last row of a table is for what no other one is. */
struct command {
    const char *verb;
    void (*run)(struct connection *, const char *argument, size_t length);
    const char *reply;
};

struct recipient {
    uint64_t hash;
    unsigned domain;
};

struct connection {
    int fd;
    uint64_t serial;  /* tells a delayed reply that its connection has gone and the number is another's now */
    const struct command *commands;
    bool in_data, has_sender, leaving;
    size_t line_length, tail_length, recipient_count, recipient_room;
    uint64_t data_bytes;
    struct recipient *recipients;
    char tail[DOT_LENGTH - 1];  /* the end of the last input: a final dot may be split anywhere */
    char line[LONGEST_LINE];
};

/* Replies that wait for their time. The delay is the same for all, so the queue is in order by itself. */
struct delayed {
    struct delayed *next;
    uint64_t due, serial;
    int fd;
    bool leaving;
    size_t length;
    char bytes[];
};

struct histogram {
    char name[256];
    uint32_t *seconds;
};

static struct {
    uint64_t messages, recipients, unique, bytes, connections, open, peak, dropped, first, last;
} counts;

static struct { uint64_t *slots; size_t room; } seen;
static struct histogram arrivals, domains[MOST_DOMAINS + 1];  /* the last one: all domains beyond */
static unsigned domain_count;
static struct connection **connections;  /* by file descriptor */
static size_t connection_room;
static struct delayed *queue_head, **queue_end = &queue_head;
static struct { char *bytes; size_t length, room; } replies;  /* the group that the input in hand has caused */
static uint64_t delay, serials;
static int poll_fd, timer_fd;
static const struct command smtp[];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *must(void *memory)
{
    if (!memory)
        die("sink: memory");
    return memory;
}

static uint64_t now(clockid_t clock)
{
    struct timespec moment;
    clock_gettime(clock, &moment);
    return (uint64_t)moment.tv_sec * SECOND + (uint64_t)moment.tv_nsec;
}

/* ---- counting ---- */

/* FNV-1a over the lower-cased address, then mixed. Two of a million addresses share 64 bits once in 40 million runs. */
static uint64_t hash_address(const char *text, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < length; i++) {
        unsigned char letter = (unsigned char)text[i];
        hash = (hash ^ (letter >= 'A' && letter <= 'Z' ? letter | 32u : letter)) * 0x100000001b3;
    }
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93;
    hash ^= hash >> 32;
    return hash ? hash : 1;  /* 0 marks a free slot */
}

/* Whether the hash is new. */
static bool insert(uint64_t *slots, size_t room, uint64_t hash)
{
    size_t at = hash & (room - 1);
    for (; slots[at]; at = (at + 1) & (room - 1))
        if (slots[at] == hash)
            return false;
    slots[at] = hash;
    return true;
}

static void grow_seen(void)
{
    size_t room = seen.room ? seen.room * 2 : 1 << 20;
    uint64_t *slots = must(calloc(room, sizeof *slots));
    for (size_t i = 0; i < seen.room; i++)
        if (seen.slots[i])
            insert(slots, room, seen.slots[i]);
    free(seen.slots);
    seen.slots = slots;
    seen.room = room;
}

static void tally(struct histogram *of, uint64_t moment)
{
    uint64_t second = (moment - counts.first) / SECOND;
    if (!of->seconds)
        of->seconds = must(calloc(MOST_SECONDS, sizeof *of->seconds));
    of->seconds[second < MOST_SECONDS ? second : MOST_SECONDS - 1]++;
}

static void count_recipient(const struct recipient *one, uint64_t moment)
{
    if (counts.unique * 2 >= seen.room)
        grow_seen();
    counts.unique += insert(seen.slots, seen.room, one->hash);
    counts.recipients++;
    tally(&arrivals, moment);
    tally(&domains[one->domain], moment);
}

static void count_message(struct connection *it)
{
    counts.last = now(CLOCK_REALTIME);
    if (!counts.messages++)
        counts.first = counts.last;
    counts.bytes += it->data_bytes;
    for (size_t i = 0; i < it->recipient_count; i++)
        count_recipient(&it->recipients[i], counts.last);
}

static unsigned domain_of(const char *address, size_t length)
{
    const char *at = memrchr(address, '@', length);
    size_t size = at ? (size_t)(address + length - at - 1) : 0;
    if (size >= sizeof domains[0].name)
        size = 0;
    for (unsigned i = 0; i < domain_count; i++)
        if (!strncasecmp(domains[i].name, at ? at + 1 : "", size) && !domains[i].name[size])
            return i;
    if (domain_count == MOST_DOMAINS)
        return MOST_DOMAINS;
    memcpy(domains[domain_count].name, at ? at + 1 : "", size);
    domains[domain_count].name[size] = 0;
    return domain_count++;
}

/* ---- replies ---- */

static void append(const char *bytes, size_t length)
{
    if (replies.length + length > replies.room) {
        replies.room = (replies.length + length) * 2;
        replies.bytes = must(realloc(replies.bytes, replies.room));
    }
    memcpy(replies.bytes + replies.length, bytes, length);
    replies.length += length;
}

static void reply(const char *line) { append(line, strlen(line)); }

__attribute__((format(printf, 1, 2))) static void replyf(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    reply(text);
}

static void hang_up(struct connection *it)
{
    counts.open -= it->commands == smtp;
    connections[it->fd] = NULL;
    close(it->fd);
    free(it->recipients);
    free(it);
}

/* A client that lets its replies pile up until the socket is full is dropped, and counted as such. */
static bool put(struct connection *it, const char *bytes, size_t length, bool leaving)
{
    bool failed = send(it->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length;
    counts.dropped += failed;
    if (failed || leaving)
        hang_up(it);
    return !failed && !leaving;
}

static void arm_timer(void)
{
    struct itimerspec when = {0};
    if (queue_head) {
        when.it_value.tv_sec = (time_t)(queue_head->due / SECOND);
        when.it_value.tv_nsec = (long)(queue_head->due % SECOND);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void put_later(struct connection *it, uint64_t due)
{
    struct delayed *one = must(malloc(sizeof *one + replies.length));
    *one = (struct delayed){NULL, due, it->serial, it->fd, it->leaving, replies.length};
    memcpy(one->bytes, replies.bytes, replies.length);
    bool first = !queue_head;
    *queue_end = one;
    queue_end = &one->next;
    if (first)
        arm_timer();
}

static void put_due(void)
{
    uint64_t moment = now(CLOCK_MONOTONIC);
    while (queue_head && queue_head->due <= moment) {
        struct delayed *one = queue_head;
        if (!(queue_head = one->next))
            queue_end = &queue_head;
        struct connection *it = connections[one->fd];
        if (it && it->serial == one->serial)
            put(it, one->bytes, one->length, one->leaving);
        free(one);
    }
    arm_timer();
}

/* ---- SMTP ---- */

static void forget_envelope(struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    it->has_sender = false;
    it->recipient_count = 0;
}

static void mail(struct connection *it, const char *argument, size_t length)
{
    forget_envelope(it, argument, length);
    it->has_sender = true;
}

/* The address is what stands between the brackets; parameters behind it do not matter here. */
static void rcpt(struct connection *it, const char *argument, size_t length)
{
    const char *from = memchr(argument, '<', length);
    const char *end = from ? memchr(from, '>', length - (size_t)(from - argument)) : NULL;
    if (!it->has_sender || !end) {
        reply(end ? "503 5.5.1 MAIL first\r\n" : "501 5.1.3 RCPT TO:<address>\r\n");
        return;
    }
    if (it->recipient_count == it->recipient_room) {
        it->recipient_room = it->recipient_room ? it->recipient_room * 2 : 4;
        it->recipients = must(realloc(it->recipients, it->recipient_room * sizeof *it->recipients));
    }
    size_t size = (size_t)(end - ++from);
    it->recipients[it->recipient_count++] = (struct recipient){hash_address(from, size), domain_of(from, size)};
    reply("250 2.1.5 Ok\r\n");
}

static void data(struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    if (!it->recipient_count) {
        reply("503 5.5.1 RCPT first\r\n");
        return;
    }
    it->in_data = true;
    it->data_bytes = 0;
    it->tail_length = 2;
    memcpy(it->tail, "\r\n", 2);  /* a dot right behind DATA ends an empty message */
    reply("354 go ahead\r\n");
}

static void quit(struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    it->leaving = true;
}

static const struct command smtp[] = {
    {"MAIL", mail, "250 2.1.0 Ok\r\n"},
    {"RCPT", rcpt, NULL},
    {"DATA", data, NULL},
    {"EHLO", forget_envelope, "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 33554432\r\n"},
    {"HELO", forget_envelope, "250 sink\r\n"},
    {"RSET", forget_envelope, "250 2.0.0 Ok\r\n"},
    {"NOOP", NULL, "250 2.0.0 Ok\r\n"},
    {"QUIT", quit, "221 2.0.0 Bye\r\n"},
    {NULL, NULL, "500 5.5.2 no such command\r\n"},
};

/* ---- control ---- */

static void stats(IGNORED struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    replyf("{\"messages\": %lu, \"recipients\": %lu, \"unique\": %lu, \"duplicates\": %lu, \"bytes\": %lu, ",
           counts.messages, counts.recipients, counts.unique, counts.recipients - counts.unique, counts.bytes);
    replyf("\"connections\": %lu, \"open\": %lu, \"peak\": %lu, \"dropped\": %lu, \"first_ns\": %lu, \"last_ns\": %lu}\n",
           counts.connections, counts.open, counts.peak, counts.dropped, counts.first, counts.last);
}

static void print_seconds(const struct histogram *of)
{
    uint64_t end = counts.messages ? (counts.last - counts.first) / SECOND + 1 : 0;
    reply("[");
    for (uint64_t i = 0; i < end && i < MOST_SECONDS; i++)
        replyf("%s%u", i ? ", " : "", of->seconds ? of->seconds[i] : 0);
    reply("]");
}

/* A name in JSON: what would need an escape is shown as "?". */
static void print_name(const char *name)
{
    reply("\"");
    for (; *name; name++)
        replyf("%c", *name < ' ' || *name == '"' || *name == '\\' || *name == 127 ? '?' : *name);
    reply("\": ");
}

static void histogram(IGNORED struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    reply("{\"seconds\": ");
    print_seconds(&arrivals);
    reply(", \"domains\": {");
    const char *between = "";
    for (unsigned i = 0; i <= MOST_DOMAINS; i++) {
        if (!domains[i].seconds)
            continue;
        reply(between);
        print_name(i == MOST_DOMAINS ? "(others)" : domains[i].name);
        print_seconds(&domains[i]);
        between = ", ";
    }
    reply("}}\n");
}

/* Domains keep their numbers: an envelope that is under way has one in hand. */
static void reset(IGNORED struct connection *it, IGNORED const char *argument, IGNORED size_t length)
{
    uint64_t open = counts.open;
    memset(&counts, 0, sizeof counts);
    counts.open = counts.peak = open;
    free(seen.slots);
    memset(&seen, 0, sizeof seen);
    free(arrivals.seconds);
    arrivals.seconds = NULL;
    for (unsigned i = 0; i <= MOST_DOMAINS; i++) {
        free(domains[i].seconds);
        domains[i].seconds = NULL;
    }
}

static const struct command control[] = {
    {"STATS", stats, NULL},
    {"HISTOGRAM", histogram, NULL},
    {"RESET", reset, "{}\n"},
    {NULL, NULL, "{\"error\": \"stats, histogram or reset\"}\n"},
};

/* ---- input ---- */

static void run_line(struct connection *it, const char *line, size_t length)
{
    const struct command *one = it->commands;
    while (one->verb && (length < strlen(one->verb) || strncasecmp(line, one->verb, strlen(one->verb))))
        one++;
    if (one->run)
        one->run(it, line + strlen(one->verb), length - strlen(one->verb));
    if (one->reply)
        reply(one->reply);
}

/* Takes one line, or what there is of it; returns the bytes taken. */
static size_t take_line(struct connection *it, const char *input, size_t length)
{
    const char *end = memchr(input, '\n', length);
    size_t size = end ? (size_t)(end - input) + 1 : length;
    if (end && !it->line_length) {
        run_line(it, input, size);
        return size;
    }
    if (it->line_length + size > sizeof it->line) {
        it->leaving = true;
        reply("500 5.5.2 line too long\r\n");
        return length;
    }
    memcpy(it->line + it->line_length, input, size);
    it->line_length += size;
    if (end) {
        size_t whole = it->line_length;
        it->line_length = 0;
        run_line(it, it->line, whole);
    }
    return size;
}

/* The bytes of input up to and with the final dot, or 0. The dot may have begun in the tail of earlier input. */
static size_t find_dot(const struct connection *it, const char *input, size_t length)
{
    char seam[2 * (DOT_LENGTH - 1)];
    size_t more = length < DOT_LENGTH - 1 ? length : DOT_LENGTH - 1;
    memcpy(seam, it->tail, it->tail_length);
    memcpy(seam + it->tail_length, input, more);
    const char *found = memmem(seam, it->tail_length + more, DOT, DOT_LENGTH);
    if (found)
        return (size_t)(found - seam) + DOT_LENGTH - it->tail_length;
    found = memmem(input, length, DOT, DOT_LENGTH);
    return found ? (size_t)(found - input) + DOT_LENGTH : 0;
}

static void keep_tail(struct connection *it, const char *input, size_t length)
{
    size_t most = sizeof it->tail;
    size_t fresh = length < most ? length : most;
    size_t kept = it->tail_length + fresh > most ? most - fresh : it->tail_length;
    memmove(it->tail, it->tail + it->tail_length - kept, kept);
    memcpy(it->tail + kept, input + length - fresh, fresh);
    it->tail_length = kept + fresh;
}

static size_t take_data(struct connection *it, const char *input, size_t length)
{
    size_t upto = find_dot(it, input, length);
    if (!upto) {
        it->data_bytes += length;
        keep_tail(it, input, length);
        return length;
    }
    it->data_bytes += upto;
    it->data_bytes -= it->data_bytes < 3 ? it->data_bytes : 3;  /* ".\r\n" is no part of the message */
    it->in_data = false;
    count_message(it);
    forget_envelope(it, NULL, 0);
    reply("250 2.0.0 Ok\r\n");
    return upto;
}

static void answer(struct connection *it)
{
    if (!replies.length)
        return;
    if (delay && it->commands == smtp)
        put_later(it, now(CLOCK_MONOTONIC) + delay);
    else
        put(it, replies.bytes, replies.length, it->leaving);
    replies.length = 0;
}

static void take_input(struct connection *it)
{
    static char input[INPUT];
    ssize_t length = recv(it->fd, input, sizeof input, MSG_DONTWAIT);
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN)
            hang_up(it);
        return;
    }
    for (size_t at = 0; at < (size_t)length && !it->leaving;) {
        size_t left = (size_t)length - at;
        at += it->in_data ? take_data(it, input + at, left) : take_line(it, input + at, left);
    }
    answer(it);
}

/* ---- sockets ---- */

static int listen_on(int port)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&place, sizeof place) || listen(fd, 4096))
        die("sink: listen");
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_in place;
    socklen_t size = sizeof place;
    getsockname(fd, (struct sockaddr *)&place, &size);
    return ntohs(place.sin_port);
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event))
        die("sink: epoll");
}

static void make_room(int fd)
{
    size_t room = connection_room;
    while ((size_t)fd >= connection_room)
        connection_room = connection_room ? connection_room * 2 : 1024;
    if (room == connection_room)
        return;
    connections = must(realloc(connections, connection_room * sizeof *connections));
    memset(connections + room, 0, (connection_room - room) * sizeof *connections);
}

static void welcome(int listener, const struct command *commands)
{
    int fd = accept(listener, NULL, NULL), yes = 1;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    make_room(fd);
    struct connection *it = must(calloc(1, sizeof *it));
    *it = (struct connection){.fd = fd, .serial = ++serials, .commands = commands};
    connections[fd] = it;
    watch(fd);
    if (commands == smtp) {
        counts.connections++;
        counts.open++;
        counts.peak = counts.open > counts.peak ? counts.open : counts.peak;
        reply("220 sink ESMTP\r\n");
        answer(it);
    }
}

static void serve(int mail_listener, int control_listener)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int number = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int i = 0; i < number; i++) {
            int fd = events[i].data.fd;
            if (fd == mail_listener)
                welcome(fd, smtp);
            else if (fd == control_listener)
                welcome(fd, control);
            else if (fd == timer_fd)
                put_due();
            else if (connections[fd])  /* may have been hung up on earlier in this batch */
                take_input(connections[fd]);
        }
    }
}

static long number_of(const char *text, const char *option)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (*end || end == text || number < 0 || number > 65535) {
        fprintf(stderr, "sink: --%s: expected a number from 0 to 65535, not \"%s\"\n", option, text);
        exit(2);
    }
    return number;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, 0, 0}, {"control", required_argument, 0, 0}, {"delay", required_argument, 0, 0}, {0}};
    long values[3] = {0};
    for (int which = 0, found; (found = getopt_long(argc, argv, "", options, &which)) != -1;) {
        if (found == '?')
            return 2;
        values[which] = number_of(optarg, options[which].name);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    delay = (uint64_t)values[2] * 1000000;
    poll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int mail_listener = listen_on((int)values[0]), control_listener = listen_on((int)values[1]);
    watch(mail_listener);
    watch(control_listener);
    watch(timer_fd);
    printf("%d %d\n", port_of(mail_listener), port_of(control_listener));
    fflush(stdout);
    serve(mail_listener, control_listener);
}
