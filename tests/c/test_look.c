/* test_look: who asks and answers is looked for until it is there; at any other pace little is spent on looking. */
#include "check.h"
#include "look.h"
#include "packets.h"

#define ASLEEP_NS 150000 /* when all have slept the next packet comes after this */
#define AWAKE_NS 40000   /* ... and after this when all have looked */

static struct look lone(void)
{
	struct look look = { 0 };

	for (uint64_t packets = 1; packets <= LOOK_LONE_WAITS; packets++)
		look_count(&look, packets);
	return look;
}

/* A wait for a packet that comes after so long; what was spent on looking. */
static int64_t wait(struct look *look, int64_t comes_ns)
{
	int64_t looks;
	bool found;

	look_count(look, look->seen + 1);
	looks = look_ns(look);
	found = comes_ns <= looks;
	if (looks)
		look_learn(look, found, comes_ns);
	return found ? comes_ns : looks;
}

static void test_a_stream_is_not_looked_for(void)
{
	struct look look = lone();

	CHECK(look_ns(&look) == LOOK_SHORT_NS);
	look_count(&look, look.seen + LOOK_LONE_PACKETS + 1);
	CHECK(look_ns(&look) == 0 && look.lone_waits == 0);
	for (int i = 1; i < LOOK_LONE_WAITS; i++) {
		look_count(&look, look.seen);
		CHECK(look_ns(&look) == 0);
	}
	look_count(&look, look.seen + LOOK_LONE_PACKETS);
	CHECK(look_ns(&look) == LOOK_SHORT_NS);
}

static void test_a_ping_pong_of_sleepers_wakes_up(void)
{
	struct look look = lone();

	(void)wait(&look, ASLEEP_NS);
	CHECK(look_ns(&look) == LOOK_LONG_NS);
	for (int i = 0; i < 10 * LOOK_REST; i++) { /* one of two packets is a question, and comes when it likes */
		CHECK(wait(&look, AWAKE_NS) == AWAKE_NS);
		(void)wait(&look, ASLEEP_NS);
	}
	CHECK(look_ns(&look) == LOOK_LONG_NS);
}

/* Its answer is there within the short look, so that half of them are rewarded. */
static void test_a_slow_question_whose_answer_is_quick(void)
{
	struct look look = lone();

	for (int i = 0; i < 1000; i++) {
		CHECK(wait(&look, 1000000) == LOOK_SHORT_NS);
		CHECK(wait(&look, LOOK_SHORT_NS) == LOOK_SHORT_NS);
	}
}

/* At whatever pace they come: what all trials cost is less than two short looks in five waits. */
static void test_a_pace_that_looking_cannot_meet(void)
{
	enum { WAITS = 100 * (LOOK_REST + LOOK_MISSES) };
	static const int64_t paces_ns[] = { LOOK_LONG_NS + 1, 100000, LOOK_NEAR_NS, 1000000 };

	for (size_t pace = 0; pace < COUNT(paces_ns); pace++) {
		struct look look = lone();
		int64_t spent = 0;

		for (int i = 0; i < WAITS; i++)
			spent += wait(&look, paces_ns[pace]);
		CHECK(spent > 0 && spent < (int64_t)WAITS * LOOK_SHORT_NS * 2 / 5);
	}
}

/* Both ends have given up, at whatever moments: their trials meet. */
static void test_two_that_rest_find_each_other(void)
{
	enum { WAITS = 100 * LOOK_REST };

	for (int later = 0; later < LOOK_REST; later++) {
		struct look here = lone(), there = lone();
		bool met = false;

		for (int i = 0; i < later + WAITS && !met; i++) {
			(void)wait(&here, ASLEEP_NS + i * 7919 % 1000);
			if (i < later)
				continue;
			(void)wait(&there, ASLEEP_NS + i * 104729 % 1000);
			met = i >= later + LOOK_REST && look_ns(&here) && look_ns(&there);
		}
		CHECK(met);
	}
}

int main(void)
{
	test_a_stream_is_not_looked_for();
	test_a_ping_pong_of_sleepers_wakes_up();
	test_a_slow_question_whose_answer_is_quick();
	test_a_pace_that_looking_cannot_meet();
	test_two_that_rest_find_each_other();
	return check_done();
}
