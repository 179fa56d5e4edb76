// A policy in a loop of a fixed rate: every period an observation goes in and an action comes out, while a thread of the
// policy's own makes the next plan. Counts what came late.
//
//     gcc -std=c11 policy_loop.c $(pkg-config --cflags --libs edgegen) -o policy_loop
//     ./policy_loop MODEL.onnx N_OBS_STEPS PERIOD_US CYCLES
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

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    const long n_obs_steps = argc > 4 ? atol(argv[2]) : 0;
    const long long period = argc > 4 ? atoll(argv[3]) * 1000 : 0;
    const long cycles = argc > 4 ? atol(argv[4]) : 0;
    if (n_obs_steps <= 0 || period <= 0 || cycles <= 0) {
        fprintf(stderr, "usage: policy_loop MODEL.onnx N_OBS_STEPS PERIOD_US CYCLES\n");
        return 2;
    }
    edgegen_error error;
    edgegen_model *model = NULL;
    edgegen_policy *policy = NULL;
    edgegen_model_info info;
    check(edgegen_model_open(argv[1], NULL, &model, &error), &error);
    check(edgegen_model_describe(model, &info, &error), &error);
    const edgegen_policy_options options = {
        .n_obs_steps = (size_t)n_obs_steps,
        .timing = EDGEGEN_TIMING_ASYNCHRONOUS,
        .joint = EDGEGEN_JOINT_CHUNK,
        .seed = 1,
    };
    // all memory is taken here, and the thread started: before this thread gets a priority that it would hand on
    check(edgegen_policy_prepare(model, NULL, &options, &policy, &error), &error);
    size_t action_len;
    check(edgegen_policy_describe(policy, NULL, &action_len, &error), &error);
    float *action = malloc(action_len * sizeof *action);
    long long *times = calloc((size_t)cycles, sizeof *times);
    edgegen_condition *arrays = calloc(info.inputs, sizeof *arrays);
    if (!action || !times || !arrays) return 1;

    // what is seen at one step: here zeros, where a robot has its sensors
    edgegen_observation observation = {.arrays = arrays};
    for (size_t i = 0; i < info.inputs; i++) {
        edgegen_input input;
        check(edgegen_model_input(model, i, &input, &error), &error);
        if (input.role != EDGEGEN_ROLE_CONDITION) continue;
        const size_t len = input.len / (size_t)n_obs_steps;
        const float *values = calloc(len, sizeof *values);
        if (!values) return 1;
        arrays[observation.num_arrays++] = (edgegen_condition){.name = input.name, .values = values, .len = len};
    }
    // the first plan, while the robot stands still
    check(edgegen_policy_prime(policy, &observation, &error), &error);

    long late = 0, dry = 0;
    long long next = now_ns();
    for (long i = 0; i < cycles; i++) {
        const long long start = now_ns();
        edgegen_step step;
        check(edgegen_policy_act(policy, &observation, action, action_len, &step, &error), &error);
        times[i] = now_ns() - start;
        if (step.state == EDGEGEN_STATE_DRY) dry++; // no plan had an action, and the last one is held
        // here, the actuators would get action

        next += period;
        if (now_ns() > next) {
            late++;
            next = now_ns();
        }
        const struct timespec wake = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
    }

    edgegen_policy_stats stats;
    check(edgegen_policy_count(policy, &stats, &error), &error);
    qsort(times, (size_t)cycles, sizeof *times, ascending);
    printf("%ld steps: act p50 %.1f us, p99 %.1f us, max %.1f us; %ld late periods; %llu plans of at most %llu us and "
           "%zu steps, %llu steps with a late plan, %ld dry\n",
           cycles, times[cycles / 2] / 1e3, times[cycles * 99 / 100] / 1e3, times[cycles - 1] / 1e3, late,
           (unsigned long long)stats.plans, (unsigned long long)stats.longest_plan_us, stats.longest_delay,
           (unsigned long long)stats.late, dry);
    edgegen_policy_free(&policy, NULL);
    for (size_t i = 0; i < observation.num_arrays; i++) free((float *)arrays[i].values);
    free(arrays);
    free(times);
    free(action);
    edgegen_model_free(&model, NULL);
    return 0;
}
