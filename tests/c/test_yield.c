/* test_yield: the core is given away as long as it comes back soon, and seldom where it does not. */
#include "check.h"
#include "yield.h"

#define HOUR_NS 3600000000000LL

static int64_t now_ns, takes_ns;
static unsigned given;

static int64_t clock_ns(void)
{
	return now_ns;
}

static int give_away(void)
{
	given++;
	now_ns += takes_ns;
	return 0;
}

static struct yield fresh(void)
{
	struct yield yield;

	yield_init(&yield);
	yield.clock = clock_ns;
	yield.give_away = give_away;
	now_ns = HOUR_NS;
	given = 0;
	return yield;
}

/* Gives way after each batch of `work_ns` for a second; how long others had the core. */
static int64_t second_of(struct yield *yield, int64_t work_ns)
{
	int64_t end = now_ns + 1000000000, worked = 0, began = now_ns;

	while (now_ns < end) {
		now_ns += work_ns;
		worked += work_ns;
		yield_core(yield);
	}
	return now_ns - began - worked;
}

static void test_programs_that_wait(void)
{
	struct yield yield = fresh();

	takes_ns = 200000;
	(void)second_of(&yield, 50000);
	CHECK(given == 4000 && yield.crowded_ns == 0);
}

/* So many batches, after each of which others have the core for as long, where it is given to them. */
static void batches(struct yield *yield, unsigned count, int64_t work_ns, int64_t each_ns)
{
	takes_ns = each_ns;
	while (count--) {
		now_ns += work_ns;
		yield_core(yield);
	}
}

/* So many times others have the core for as long, and then we until it may be given to them again. */
static void long_ones(struct yield *yield, unsigned count, int64_t work_ns, int64_t each_ns)
{
	while (count--) {
		batches(yield, 1, work_ns, each_ns);
		while (!yield->crowded_ns && !yield_is_cheap(yield, now_ns + work_ns))
			batches(yield, 1, work_ns, each_ns);
	}
}

/* As measured in a flood: for moments its sender, which never waits, is on this core, too. */
static void test_programs_that_cannot_keep_up(void)
{
	struct yield yield = fresh();

	for (int i = 0; i < 100; i++) {
		long_ones(&yield, 20, 100000, 5000000);
		batches(&yield, 200, 100000, 300000);
	}
	CHECK(given == 100 * 220 && yield.crowded_ns == 0);
}

/* As measured beside an endless loop at an ordinary priority, which a thread of nice -15 seldom lets come to its turn. */
static void test_a_program_that_computes_and_is_kept_waiting(void)
{
	struct yield yield = fresh();
	unsigned turns = 0;

	while (!yield.crowded_ns && turns++ < 100) {
		long_ones(&yield, 1, 100000, 3000000);
		batches(&yield, 1, 100000, 100000);
		batches(&yield, 200, 5000, 500);
	}
	CHECK(turns == 28 && yield.again_ns > now_ns + 127 * 28 * 3000000LL);
}

/* What came while somebody kept the core goes first, or it does not fit flannel0's queue after the next time. */
static void test_one_that_took_long(void)
{
	struct yield yield = fresh();

	batches(&yield, 30, 100000, 3000000);
	CHECK(given == 1 && yield.crowded_ns == 0);
	batches(&yield, 10, 100000, 300000);
	CHECK(given == 11);
}

static void test_programs_that_compute(void)
{
	struct yield yield = fresh();

	takes_ns = 4000000;
	CHECK(second_of(&yield, 50000) == 24 * 4000000 && given == 24);
	CHECK(!yield_is_cheap(&yield, now_ns) && yield.crowded_ns == yield.again_ns + YIELD_CROWDED_NS);

	/* It is alone again. */
	now_ns = yield.again_ns;
	takes_ns = 500;
	given = 0;
	(void)second_of(&yield, 50000);
	CHECK(given > 19000 && yield_is_cheap(&yield, now_ns));
}

/* One of the long yields was the machine's standing still (paused, moved to another host, stopped): an hour of it says no
 * more of who shares the core than milliseconds do. */
static void test_the_machine_stood_still(void)
{
	struct yield yield = fresh();

	batches(&yield, 1, 50000, HOUR_NS);
	takes_ns = 4000000;
	for (int i = 0; i < 3; i++)
		(void)second_of(&yield, 50000);
	CHECK(given == 24 && !yield_is_cheap(&yield, now_ns));
	CHECK(yield.again_ns <= now_ns + YIELD_REST * (YIELD_MOST_NS + 23 * 4000000LL));
}

static void test_the_real_one(void)
{
	struct yield yield;

	yield_init(&yield);
	CHECK(yield_is_cheap(&yield, yield.clock()));
	yield_core(&yield);
	CHECK(yield.again_ns == 0 || yield.credits < YIELD_CREDITS); /* this machine may be busy */
}

int main(void)
{
	test_programs_that_wait();
	test_programs_that_cannot_keep_up();
	test_a_program_that_computes_and_is_kept_waiting();
	test_one_that_took_long();
	test_programs_that_compute();
	test_the_machine_stood_still();
	test_the_real_one();
	return check_done();
}
