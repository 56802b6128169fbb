/* connect: short TCP connections, as many as there is time for.
 *
 *   connect server ADDRESS PORT                     serves until it is killed
 *   connect client SOURCE ADDRESS PORT SECONDS      prints how many connections were made, and in how many seconds
 *
 * Each connection is made, carries one byte each way and is closed, by the server first: the side that closes first
 * keeps a connection's ports for a minute, and the client would run out of them. WORKERS processes on each side do
 * this one connection after the other. Owns its processes; must not know what the connections travel through.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 8
#define ADDRESS_NO_PORT 24 /* IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, by the whole four-tuple */

static void fail(const char *what)
{
	fprintf(stderr, "connect: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in endpoint(const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (inet_pton(AF_INET, address, &at.sin_addr) != 1)
		fail(address);
	return at;
}

static void serve(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char byte;

		if (fd < 0)
			continue;
		if (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) != 1)
			perror("connect: write");
		close(fd);
	}
}

static int listen_at(const struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)at, sizeof(*at)) || listen(fd, 1024))
		fail("listen");
	return fd;
}

/* One connection; whether it went as it should. */
static int once(const struct sockaddr_in *source, const struct sockaddr_in *target)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, well;
	char byte = 'x';

	setsockopt(fd, IPPROTO_IP, ADDRESS_NO_PORT, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	well = !bind(fd, (const struct sockaddr *)source, sizeof(*source)) &&
	       !connect(fd, (const struct sockaddr *)target, sizeof(*target)) && write(fd, &byte, 1) == 1 &&
	       read(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 0;
	close(fd);
	return well;
}

static void spend(const struct sockaddr_in *source, const struct sockaddr_in *target, double end, long counts[2])
{
	while (now() < end)
		counts[!once(source, target)]++;
}

static void start_workers(void (*work)(int, void *), void *argument)
{
	for (int i = 0; i < WORKERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			work(i, argument);
			exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
}

struct client {
	struct sockaddr_in source, target;
	double end;
	long (*counts)[8]; /* a cache line for each worker */
};

static void client_worker(int number, void *argument)
{
	const struct client *client = argument;

	spend(&client->source, &client->target, client->end, client->counts[number]);
}

static void server_worker(int number, void *argument)
{
	(void)number;
	serve(*(int *)argument);
}

int main(int argc, char **argv)
{
	long made = 0, failed = 0;

	if (argc == 4 && !strcmp(argv[1], "server")) {
		struct sockaddr_in at = endpoint(argv[2], argv[3]);
		int listener = listen_at(&at);

		start_workers(server_worker, &listener);
		return 1;
	}
	if (argc != 6 || strcmp(argv[1], "client")) {
		fprintf(stderr, "usage: connect server ADDRESS PORT | connect client SOURCE ADDRESS PORT SECONDS\n");
		return 2;
	}
	struct client client = { endpoint(argv[2], "0"), endpoint(argv[3], argv[4]), now() + atof(argv[5]), NULL };
	double began = now();

	client.counts = mmap(NULL, 64 * WORKERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (client.counts == MAP_FAILED)
		fail("mmap");
	start_workers(client_worker, &client);
	for (int i = 0; i < WORKERS; i++) {
		made += client.counts[i][0];
		failed += client.counts[i][1];
	}
	printf("made %ld failed %ld seconds %.6f\n", made, failed, now() - began);
	return 0;
}
