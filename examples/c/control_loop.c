// A loop of a fixed rate: every period it makes a sample by a deadline, and counts what came late.
//
//     gcc -std=c11 control_loop.c $(pkg-config --cflags --libs edgegen) -o control_loop
//     ./control_loop PERIOD_US CYCLES [model.onnx]
#define _POSIX_C_SOURCE 200809L // clock_nanosleep
#include <edgegen.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(edgegen_status status, const edgegen_error *error) {
    if (status == EDGEGEN_STATUS_OK) return;
    fprintf(stderr, "edgegen: %s: %s\n", edgegen_status_name(status), error->message);
    exit(1);
}

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int ascending(const void *a, const void *b) {
    const long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    const long long period = argc > 2 ? atoll(argv[1]) : 0;
    const long cycles = argc > 2 ? atol(argv[2]) : 0;
    if (period <= 0 || cycles <= 0) {
        fprintf(stderr, "usage: control_loop PERIOD_US CYCLES [MODEL.onnx]\n");
        return 2;
    }
    edgegen_error error;
    edgegen_model *model = NULL;
    edgegen_generator *generator = NULL;
    edgegen_model_info info;
    check(argc > 3 ? edgegen_model_open(argv[3], NULL, &model, &error) : edgegen_model_embedded(&model, &error), &error);
    check(edgegen_model_describe(model, &info, &error), &error);
    // all memory is taken here, and none in the loop
    check(edgegen_prepare(model, NULL, &generator, &error), &error);
    float *plan = malloc(info.sample_len * sizeof *plan);
    long long *times = calloc((size_t)cycles, sizeof *times);
    if (!plan || !times) return 1;

    // what the model is conditioned on: here zeros, where a robot has its observations
    edgegen_condition *conditions = calloc(info.inputs, sizeof *conditions);
    if (!conditions) return 1;
    size_t num_conditions = 0;
    for (size_t i = 0; i < info.inputs; i++) {
        edgegen_input input;
        check(edgegen_model_input(model, i, &input, &error), &error);
        if (input.role != EDGEGEN_ROLE_CONDITION) continue;
        const float *values = calloc(input.len, sizeof *values);
        if (!values) return 1;
        conditions[num_conditions++] = (edgegen_condition){.name = input.name, .values = values, .len = input.len};
    }

    long cut_short = 0, late = 0;
    edgegen_request request = {
        .seed = 1,
        .conditions = conditions,
        .num_conditions = num_conditions,
        .deadline_us = (uint64_t)period * 8 / 10,
    };
    long long next = now_us();
    for (long i = 0; i < cycles; i++) {
        const long long start = now_us();
        edgegen_outcome outcome;
        request.index = (uint64_t)i; // here, an observation would be written into a condition's values
        check(edgegen_generate(generator, &request, plan, info.sample_len, &outcome, &error), &error);
        times[i] = now_us() - start;
        if (outcome.ending == EDGEGEN_ENDING_DEADLINE) cut_short++; // the best there was by then is in plan
        // here, the actuators would get plan

        next += period;
        if (now_us() > next) {
            late++;
            next = now_us();
        }
        const struct timespec wake = {.tv_sec = next / 1000000, .tv_nsec = next % 1000000 * 1000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
    }

    qsort(times, (size_t)cycles, sizeof *times, ascending);
    printf("%ld cycles: p50 %lld us, p99 %lld us, max %lld us; %ld cut short, %ld late\n", cycles, times[cycles / 2],
           times[cycles * 99 / 100], times[cycles - 1], cut_short, late);
    for (size_t i = 0; i < num_conditions; i++) free((float *)conditions[i].values);
    free(conditions);
    free(times);
    free(plan);
    edgegen_generator_free(&generator, NULL);
    edgegen_model_free(&model, NULL);
    return 0;
}
