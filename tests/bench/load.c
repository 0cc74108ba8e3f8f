/* Copyright txconnpool contributors. See LICENSE.
 *
 * The loop of a benchmark's clients, see tests/bench/native.py. It does what Clients.run of tests/bench/generator.py
 * does, for a fifth of the processor time, so that the contender is the bottleneck.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The same as tests/bench/native.py. */
enum { RIGHT, WRONG, CLOSED, LATE, FAILED };

struct exchange {
    const char *request, *reply;
    uint64_t requestSize, replySize, count;
};

struct client {
    int fd, busy, writing;
    const struct exchange *exchange;
    uint64_t sent, received;
    int64_t since;
};

struct outcome {
    uint64_t requests;
    int64_t nanoseconds;
    uint64_t position; /* of the next exchange */
    uint64_t expected; /* the position of the exchange that went wrong, */
    uint64_t offset;   /* how much of its reply was right, */
    uint64_t size;     /* and the bytes that came then */
    const char *received;
};

static char received[1 << 16];

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Send the rest of a client's request, or have the epoll report when there is room for it. */
static int ask(int epoll, struct client *client, uint64_t number) {
    const struct exchange *exchange = client->exchange;
    ssize_t size = send(client->fd, exchange->request + client->sent, exchange->requestSize - client->sent, MSG_NOSIGNAL);
    if (size < 0 && errno != EAGAIN)
        return FAILED;
    if (size > 0)
        client->sent += (uint64_t)size;
    int writing = client->sent < exchange->requestSize;
    if (writing != client->writing) {
        struct epoll_event event = {EPOLLIN | (writing ? EPOLLOUT : 0), {.u64 = number}};
        if (epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event) < 0)
            return FAILED;
        client->writing = writing;
    }
    return RIGHT;
}

static int load(int epoll, struct client *clients, uint64_t count, const struct exchange *plan, uint64_t length,
                int64_t duration, int patience, uint32_t *latencies, uint64_t most, struct outcome *outcome) {
    struct epoll_event events[256];
    uint64_t busy = count;
    int64_t begin = now(), end = begin + duration;
    int status;
    for (uint64_t i = 0; i < count; i++) {
        struct client *client = &clients[i];
        client->exchange = &plan[outcome->position++ % length];
        client->since = now();
        client->busy = 1;
        if ((status = ask(epoll, client, i)) != RIGHT)
            return status;
    }
    while (busy) {
        int ready = epoll_wait(epoll, events, 256, patience);
        if (ready < 0 && errno != EINTR)
            return FAILED;
        if (ready == 0)
            return LATE;
        for (int i = 0; i < ready; i++) {
            struct client *client = &clients[events[i].data.u64];
            const struct exchange *exchange = client->exchange;
            outcome->expected = (uint64_t)(exchange - plan);
            if (client->writing && events[i].events & EPOLLOUT
                && (status = ask(epoll, client, events[i].data.u64)) != RIGHT)
                return status;
            if (events[i].events == EPOLLOUT)
                continue;
            ssize_t size = recv(client->fd, received, sizeof received, 0);
            if (size < 0) {
                if (errno == EAGAIN)
                    continue;
                return FAILED;
            }
            if (size == 0)
                return CLOSED;
            if (!client->busy || client->received + (uint64_t)size > exchange->replySize
                || memcmp(received, exchange->reply + client->received, (size_t)size)) {
                outcome->offset = client->received;
                outcome->size = (uint64_t)size;
                outcome->received = received;
                return WRONG;
            }
            client->received += (uint64_t)size;
            if (client->received < exchange->replySize)
                continue;
            int64_t time = now();
            uint64_t latency = (uint64_t)(time - client->since) / 1000;
            latencies[latency < most ? latency : most - 1]++;
            outcome->requests += exchange->count;
            client->sent = client->received = 0;
            if (time < end) {
                client->since = time;
                client->exchange = &plan[outcome->position++ % length];
                if ((status = ask(epoll, client, events[i].data.u64)) != RIGHT)
                    return status;
            } else {
                client->busy = 0;
                busy--;
            }
        }
    }
    outcome->nanoseconds = now() - begin;
    return RIGHT;
}

/* Keep each client busy for a time, then wait for the outstanding replies.
 *
 * descriptors: the connected sockets, which do not block.
 * duration: in nanoseconds. patience: in milliseconds.
 * latencies: counts exchanges by their latency in microseconds; the last of them also counts longer ones.
 */
int run(const int *descriptors, uint64_t count, const struct exchange *plan, uint64_t length, int64_t duration,
        int patience, uint32_t *latencies, uint64_t most, struct outcome *outcome) {
    int status = FAILED;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc(count, sizeof *clients);
    if (epoll >= 0 && clients != NULL) {
        uint64_t i = 0;
        for (; i < count; i++) {
            struct epoll_event event = {EPOLLIN, {.u64 = i}};
            clients[i].fd = descriptors[i];
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptors[i], &event) < 0)
                break;
        }
        if (i == count)
            status = load(epoll, clients, count, plan, length, duration, patience, latencies, most, outcome);
    }
    free(clients);
    close(epoll);
    return status;
}
