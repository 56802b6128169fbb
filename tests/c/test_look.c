/* test_look: who asks and answers is looked for until it is there; at any other pace little is spent on looking. */
#include "check.h"
#include "look.h"

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
	int64_t looks = look_ns(look);
	bool found = comes_ns <= looks;

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

static void test_a_slow_question_is_looked_for_shortly(void)
{
	struct look look = lone();

	(void)wait(&look, ASLEEP_NS);
	(void)wait(&look, LOOK_NEAR_NS);
	for (int i = 0; i < 1000; i++)
		CHECK(wait(&look, 1000000) == LOOK_SHORT_NS);
}

static void test_a_pace_that_looking_cannot_meet(void)
{
	enum { WAITS = 100 * (LOOK_REST + LOOK_MISSES) };
	struct look look = lone();
	int64_t spent = 0;

	for (int i = 0; i < WAITS; i++)
		spent += wait(&look, 100000);
	/* Next to a short look in each wait: a hundredth more for the trials. */
	CHECK(spent > (int64_t)WAITS * LOOK_SHORT_NS);
	CHECK(spent < (int64_t)WAITS * LOOK_SHORT_NS * 105 / 100);
}

int main(void)
{
	test_a_stream_is_not_looked_for();
	test_a_ping_pong_of_sleepers_wakes_up();
	test_a_slow_question_is_looked_for_shortly();
	test_a_pace_that_looking_cannot_meet();
	return check_done();
}
