// edgegen: samples from a diffusion model, on the device itself.
//
// A model is opened once and shared. Each thread prepares a generator from it, and then makes samples into memory
// of its own: docs/c-api.md, examples/c.
//
//     edgegen_model *model = NULL;
//     edgegen_generator *generator = NULL;
//     edgegen_error error;
//     edgegen_request request = {.seed = 7};
//     if (edgegen_model_open("model.onnx", NULL, &model, &error) != EDGEGEN_STATUS_OK ||
//         edgegen_prepare(model, NULL, &generator, &error) != EDGEGEN_STATUS_OK ||
//         edgegen_generate(generator, &request, sample, len, NULL, &error) != EDGEGEN_STATUS_OK)
//         fprintf(stderr, "%s\n", error.message);
//
// Every function returns a status and takes, last, an edgegen_error of the caller's (or NULL) for one line that says
// what was wrong. There is no global state, and nothing aborts. The memory that pointers point to stays the caller's.


#ifndef EDGEGEN_H
#define EDGEGEN_H

// Written by cbindgen from src/capi. To write it anew: tools/capi/header.sh

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The length of an error's message, with the zero at its end.
#define EDGEGEN_MESSAGE_SIZE 256

// The most dimensions that a shape has here.
#define EDGEGEN_MAX_RANK 8

// The class of a request that is drawn from its seed and its index, as the program and the other languages do where no class is
// given.
#define EDGEGEN_CLASS_DRAWN -2

// The version of this interface. It changes when a program compiled against an older header would no longer work.
#define EDGEGEN_ABI_VERSION 2

// What a call came to. A run that a deadline or the callback ended is OK: `edgegen_outcome` says so.
enum edgegen_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It worked.
    EDGEGEN_STATUS_OK = 0,
    // An argument is out of its range or does not fit the model.
    EDGEGEN_STATUS_INVALID_ARGUMENT = 1,
    // A pointer that must not be null is.
    EDGEGEN_STATUS_NULL_POINTER = 2,
    // A buffer is of the wrong length.
    EDGEGEN_STATUS_WRONG_SIZE = 3,
    // A handle is none, or was freed.
    EDGEGEN_STATUS_BAD_HANDLE = 4,
    // Another thread is in a call with this generator, or this call came from its own callback.
    EDGEGEN_STATUS_BUSY = 5,
    // The file or the bytes are not a network that samples can be made from.
    EDGEGEN_STATUS_MODEL = 6,
    // A file could not be read.
    EDGEGEN_STATUS_IO = 7,
    // A number was not finite where only finite numbers make sense.
    EDGEGEN_STATUS_NOT_FINITE = 8,
    // The network failed while it ran.
    EDGEGEN_STATUS_NETWORK = 9,
    // This build lacks what was asked for.
    EDGEGEN_STATUS_UNSUPPORTED = 10,
    // A mistake in the library: it was caught, and the handle may be freed.
    EDGEGEN_STATUS_INTERNAL = 11,
    // A policy has no action for a control step.
    EDGEGEN_STATUS_NO_ACTION = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_status edgegen_status;
#else
typedef int32_t edgegen_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What an input of a network is for.
enum edgegen_role
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The noisy sample.
    EDGEGEN_ROLE_SAMPLE = 0,
    // The time of the step.
    EDGEGEN_ROLE_TIME = 1,
    // A class' index: `class_index` of a request.
    EDGEGEN_ROLE_CLASS = 2,
    // Any other condition: given by its name in a request.
    EDGEGEN_ROLE_CONDITION = 3,
    // The time that a step leads to.
    EDGEGEN_ROLE_NEXT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_role edgegen_role;
#else
typedef int32_t edgegen_role;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Why a run ended.
enum edgegen_ending
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Every step was taken.
    EDGEGEN_ENDING_COMPLETE = 0,
    // The callback asked for it.
    EDGEGEN_ENDING_CALLBACK = 1,
    // The deadline passed.
    EDGEGEN_ENDING_DEADLINE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_ending edgegen_ending;
#else
typedef int32_t edgegen_ending;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a control step came to: the first of these, from the bottom, that is so.
enum edgegen_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // There is an action of a plan, and the plans come in time.
    EDGEGEN_STATE_PLANNED = 0,
    // No new observation came: the last one stands for it.
    EDGEGEN_STATE_DROPPED = 1,
    // A new plan is not there though it was expected: the last one goes on.
    EDGEGEN_STATE_LATE = 2,
    // The latest observation is too old, or there is none: no plan is made of it, and the last one goes on.
    EDGEGEN_STATE_STALE = 3,
    // The robot waits for a simulated plan.
    EDGEGEN_STATE_WAITING = 4,
    // There is no action of a plan: it is as `when_dry` says.
    EDGEGEN_STATE_DRY = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_state edgegen_state;
#else
typedef int32_t edgegen_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// When plans are made, and when they are there.
enum edgegen_timing
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // In `edgegen_policy_act`, when the actions of the last one have been carried out.
    EDGEGEN_TIMING_SYNCHRONOUS = 0,
    // On a thread of its own, while the last one is carried out: `edgegen_policy_act` takes microseconds.
    EDGEGEN_TIMING_ASYNCHRONOUS = 1,
    // As if on a thread on which each takes `delay` control steps.
    EDGEGEN_TIMING_SIMULATED = 2,
    // As if each took `delay` control steps, for which the robot stands still.
    EDGEGEN_TIMING_WAITING = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_timing edgegen_timing;
#else
typedef int32_t edgegen_timing;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a plan is joined to the last one.
enum edgegen_joint
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Not at all.
    EDGEGEN_JOINT_SWITCH = 0,
    // The actions that are carried out meanwhile are put into the noisy plan at every step.
    EDGEGEN_JOINT_INPAINT = 1,
    // Real-time chunking (arXiv 2506.07339).
    EDGEGEN_JOINT_CHUNK = 2,
    // Real-time chunking as a network of a time for each action was trained for it (arXiv 2512.05964).
    EDGEGEN_JOINT_PREFIX = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_joint edgegen_joint;
#else
typedef int32_t edgegen_joint;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How real-time chunking has the network's derivative.
enum edgegen_jacobian
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // By a second network call at each step.
    EDGEGEN_JACOBIAN_DIFFERENCE = 0,
    // As of independent elements of variance 1: costs nothing, and holds plans too tightly (docs/policy.md).
    EDGEGEN_JACOBIAN_DIAGONAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_jacobian edgegen_jacobian;
#else
typedef int32_t edgegen_jacobian;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the action is when there is none of a plan.
enum edgegen_when_dry
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The last action again.
    EDGEGEN_WHEN_DRY_HOLD = 0,
    // `safe_action`.
    EDGEGEN_WHEN_DRY_SAFE = 1,
    // EDGEGEN_STATUS_NO_ACTION.
    EDGEGEN_WHEN_DRY_ERROR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum edgegen_when_dry edgegen_when_dry;
#else
typedef int32_t edgegen_when_dry;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Makes pictures of samples that are latents, one at a time, in memory of its own. Give each thread its own: one that finds
// it in use is told EDGEGEN_STATUS_BUSY.
typedef struct edgegen_decoder edgegen_decoder;

// Makes samples, one at a time, in memory of its own. Give each thread its own: one that finds it in use is told
// EDGEGEN_STATUS_BUSY.
typedef struct edgegen_generator edgegen_generator;

// A loaded network: immutable, and shared by any number of generators and threads.
typedef struct edgegen_model edgegen_model;

// Gives actions, one at each control step. For one thread at a time: another that finds it in use is told
// EDGEGEN_STATUS_BUSY.
typedef struct edgegen_policy edgegen_policy;

// The shape of an array.
typedef struct edgegen_shape {
    // What it belongs to.
    const char *name;
    // Its dimensions.
    const size_t *shape;
    // The number of them.
    size_t rank;
} edgegen_shape;

// How to read a model. All zeros stand for what the file says of itself.
typedef struct edgegen_model_options {
    // The text (not the name) of a diffusers scheduler_config.json, for a model that has no noise schedule of its own.
    const char *scheduler_config;
    // One sample's shape, for a graph that leaves it open; null if it does not.
    const size_t *sample_shape;
    // The number of its dimensions.
    size_t sample_rank;
    // The names of the sample's, the time's and the class' input, if they cannot be told; else null. "none" for a network
    // that takes no time, or no class.
    const char *sample_input;
    const char *time_input;
    const char *class_input;
    // The bytes that the model may take in all: its weights, what is made of them, and the memory that it runs in. 0 stands
    // for 16 times the size of its files, and at least 1 GiB.
    size_t max_memory;
    // What the network is told of the noise: "step", "alpha-bar", "gamma", "sigma", "log-snr", "unit" or
    // "quarter-log-sigma"; null for what the model or its input's name says, else the training step.
    const char *time_as;
    // The name of the input that takes the time that a step leads to, of a network that takes both ends of a step; else null.
    const char *next_input;
    // The name of the output that is the prediction, of a network that has several and where it cannot be told; else null.
    const char *output;
    // The shapes of the arrays that are given for conditions, where the file leaves them open.
    const struct edgegen_shape *condition_shapes;
    size_t num_condition_shapes;
    // What the network takes in one input with its sample, in channels after the sample's: masks and pictures to go by.
    // Requests give them as conditions of these names. One called "sample", of a null shape, is the sample's place among
    // them; one of another name and a null shape takes all channels that the others leave.
    const struct edgegen_shape *joins;
    size_t num_joins;
    // What the model computes in: "f32", "f16" (values take half the room, and a CPU with FEAT_FP16 is faster) or "auto" (16
    // bits on such a CPU); null for "f32".
    const char *precision;
} edgegen_model_options;

// What went wrong, written into memory of the caller's: threads that each have their own cannot disturb each other.
// Every function takes one last, and null if the status is enough.
typedef struct edgegen_error {
    // What the call returned.
    edgegen_status status;
    // One line for a person, which says what would be right; empty if all went well.
    char message[EDGEGEN_MESSAGE_SIZE];
} edgegen_error;

// What a model is. Strings live as long as the model.
typedef struct edgegen_model_info {
    // One sample's shape, such as 1, 28, 28: the first `sample_rank` of these.
    size_t sample_shape[EDGEGEN_MAX_RANK];
    size_t sample_rank;
    // The numbers of one sample, which is how many floats a buffer for it must hold.
    size_t sample_len;
    // The number of inputs: see `edgegen_model_input`.
    size_t inputs;
    // The number of classes that may be asked for; 0 if there are none, or the file does not say how many.
    size_t classes;
    // Whether the model takes a class.
    bool takes_class;
    // The least and the greatest value of a sample, black and white of a picture.
    float value_min;
    float value_max;
    // The number of stored weights.
    size_t parameters;
    // Bytes of the packed weights, which all generators share; 0 if not known (`has_plan` is false).
    size_t weight_bytes;
    // Whether calls of the network allocate nothing: they are run by a plan made when the model was opened.
    bool has_plan;
    // What runs the network, for a person.
    const char *engine;
} edgegen_model_info;

// An input of a model. Its strings live as long as the model.
typedef struct edgegen_input {
    const char *name;
    edgegen_role role;
    // Its shape: the first `rank` of these.
    size_t shape[EDGEGEN_MAX_RANK];
    size_t rank;
    // The number of its elements.
    size_t len;
    // Its elements' type in the file, such as "F32" or "I64"; requests give floats whatever it is.
    const char *element_type;
} edgegen_input;

// How samples are made. `edgegen_options_init` fills in what suits a model.
typedef struct edgegen_options {
    // The number of solver steps.
    size_t steps;
    // The solver's name, such as "ddim" or "dpm++2m"; null for the model's own.
    const char *sampler;
    // Which noise levels the steps visit: "leading", "trailing", "linspace", "karras", "log-snr" or "tuned"; null for
    // the model's own.
    const char *spacing;
    // The weight of classifier-free guidance: 1 is none, any other calls the network twice a step.
    float guidance;
    // Threads that share each network call; 0 stands for 1. The sample has the same bits for any number.
    size_t threads;
    // The times that the steps visit, as the network counts them, from the noisiest on, in place of `steps` and `spacing`;
    // null for those.
    const double *timesteps;
    size_t num_timesteps;
    // By how much the steps of a flow whose schedule has use_dynamic_shifting are shifted to noise: mu; null for what follows
    // from the sample's size.
    const double *mu;
} edgegen_options;

// A condition, by the name of the network's input.
typedef struct edgegen_condition {
    const char *name;
    // Its numbers, as many as the input has elements.
    const float *values;
    size_t len;
} edgegen_condition;

// How far a run is. Pointers are good during the callback alone.
typedef struct edgegen_progress {
    // Steps done, from 1.
    size_t step;
    // Steps in all; 0 if the solver chooses them.
    size_t steps;
    // The noisy sample now.
    const float *x;
    // The estimate of the clean sample.
    const float *x0;
    // How many numbers each has.
    size_t len;
} edgegen_progress;

// Called after every step; anything but 0 ends the run. It must return: neither throw nor `longjmp`.
typedef int (*edgegen_on_step)(void *user, const struct edgegen_progress *progress);

// What to make. All zeros stand for sample 0 of seed 0, of class 0 if the model has classes, without a deadline.
typedef struct edgegen_request {
    // The seed. The sample depends on (seed, index), the model, the options and the conditions alone.
    uint64_t seed;
    // The sample's number in the seed's run.
    uint64_t index;
    // The class: -1 for the model's "no class", EDGEGEN_CLASS_DRAWN for one that is drawn. For a model that takes no class, 0
    // or less.
    int32_t class_index;
    // The other conditions: each that the model takes.
    const struct edgegen_condition *conditions;
    size_t num_conditions;
    // Standard normal numbers to start from instead of the seed's; null for the seed's.
    const float *noise;
    size_t noise_len;
    // A sample to start from instead of noise; null for noise. With `strength` or `sigma`.
    const float *init;
    size_t init_len;
    // Makes another sample near `init`, or renews a plan: it is noised to where this share of the steps is to be run,
    // above 0 and at most 1. 0 where `sigma` is given, or there is no `init`. The first request of each strength or
    // sigma allocates.
    double strength;
    // Takes the noise from `init`, which has noise of this standard deviation, in the network's units; else 0.
    double sigma;
    // Microseconds from now after which no further step begins; 0 for none. The sample is then the best there is: the
    // estimate of the clean sample by then. A step under way is ended, so allow for the time of one.
    uint64_t deadline_us;
    // Called after every step; null for none.
    edgegen_on_step on_step;
    // Handed to it.
    void *user;
} edgegen_request;

// What a run came to.
typedef struct edgegen_outcome {
    // Why it ended.
    edgegen_ending ending;
    // Steps taken. If the deadline passed before the first, this is 0, and the sample is noise.
    size_t steps;
    // Network calls made.
    size_t nfe;
} edgegen_outcome;

// A part of a condition, observed by a name of its own.
typedef struct edgegen_part {
    // The condition.
    const char *condition;
    // What the part is called in observations.
    const char *name;
    // The numbers that it has at each control step.
    size_t len;
} edgegen_part;

// How a policy is run. All zeros stand for what suits the model and for a synchronous policy.
typedef struct edgegen_policy_options {
    // The control steps whose observations a plan is made of; 0 for what the policy's config.json says, else 1.
    size_t n_obs_steps;
    // The control steps from one plan to the next, which is how many actions of each are carried out; 0 for what the
    // config.json says, else half of those that are not of the past.
    size_t n_action_steps;
    // Which action of a plan is for the step of its latest observation; null for `n_obs_steps` - 1.
    const size_t *first_action;
    // When plans are made: an `edgegen_timing`.
    int32_t timing;
    // The control steps that a plan takes with EDGEGEN_TIMING_SIMULATED and EDGEGEN_TIMING_WAITING; else 0.
    size_t delay;
    // How a plan is joined to the last one: an `edgegen_joint`.
    int32_t joint;
    // How EDGEGEN_JOINT_CHUNK has the network's derivative: an `edgegen_jacobian`.
    int32_t jacobian;
    // The greatest weight of its guidance; 0 for 5, the paper's.
    double most_guidance;
    // Starts each plan from the last one, by this share of the steps, at most 1; 0 for noise.
    double warm_start;
    // Averages plans that overlap with the weights exp(-m i), i = 0 for the oldest: m, 0.01 in ACT; null for none of it.
    const double *ensemble;
    // What the action is when there is none of a plan: an `edgegen_when_dry`.
    int32_t when_dry;
    // The action of EDGEGEN_WHEN_DRY_SAFE; else null.
    const float *safe_action;
    size_t safe_action_len;
    // The age in control steps from above which no plan is made of an observation; null for none.
    const size_t *stale_after;
    // Microseconds after which a plan is cut short; 0 for none.
    uint64_t budget_us;
    // The control steps that a plan is expected to take before one was measured, with EDGEGEN_TIMING_ASYNCHRONOUS; 0 for 1.
    size_t expected_delay;
    // Plan k is that of (seed, k).
    uint64_t seed;
    // The class of all plans; less than 0 for the model's "no class". For a model that takes no class, 0 or less.
    int32_t class_index;
    // The conditions that are no observations but the same for all plans.
    const struct edgegen_condition *conditions;
    size_t num_conditions;
    // Conditions that are made of several arrays of each step, by their parts in order.
    const struct edgegen_part *parts;
    size_t num_parts;
    // The text of a LeRobot policy's config.json; null for the one beside the model's file, if there is one.
    const char *lerobot_config;
} edgegen_policy_options;

// What was seen at one control step.
typedef struct edgegen_observation {
    // Its arrays by their names.
    const struct edgegen_condition *arrays;
    size_t num_arrays;
    // How many control steps ago it was taken.
    size_t age;
} edgegen_observation;

// What a control step came to.
typedef struct edgegen_step {
    edgegen_state state;
    // The number of the plan that the action is of; -1 if it is of none.
    int64_t plan;
    // Which of the plan's actions it is: the control steps from the plan's observation to now.
    size_t place;
} edgegen_step;

// What the control steps since the policy was prepared or reset came to.
typedef struct edgegen_policy_stats {
    // Control steps.
    uint64_t steps;
    // Plans that were made; of them those of no use, since all of their actions were of the past, and those that the budget
    // cut short.
    uint64_t plans;
    uint64_t discarded;
    uint64_t cut_short;
    // Plans that the budget ended before the first network call, and plans that failed.
    uint64_t missed;
    uint64_t failed;
    // Steps without a new observation; with one too old, or none; at which a plan was late; at which a simulated robot
    // waited; without an action of a plan.
    uint64_t dropped;
    uint64_t stale;
    uint64_t late;
    uint64_t waiting;
    uint64_t dry;
    // The control steps that the latest plan took to be there, and the most that one took.
    size_t delay;
    size_t longest_delay;
    // The microseconds that the latest plan took to make, and the most that one took.
    uint64_t plan_us;
    uint64_t longest_plan_us;
} edgegen_policy_stats;

// How a decoder is read. All zeros stand for what the config.json beside it says.
typedef struct edgegen_decoder_options {
    // What latents are divided by before they are decoded, and what is then added; a scale of 0 for both as the config.json
    // beside the decoder has them.
    double scale;
    double shift;
    // Threads that share each call; 0 stands for 1.
    size_t threads;
    // The most bytes of memory that the decoder may take; 0 for 16 times its files, and at least 1 GiB.
    size_t max_memory;
} edgegen_decoder_options;

// What a decoder makes.
typedef struct edgegen_decoder_info {
    // A picture's shape, such as 3, 512, 512: the first `picture_rank` of these.
    size_t picture_shape[EDGEGEN_MAX_RANK];
    size_t picture_rank;
    // The numbers of a picture, from -1 (black) to 1 (white), which is how many floats a buffer for it must hold.
    size_t picture_len;
} edgegen_decoder_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The status' name, such as "WRONG_SIZE", for a log.
const char *edgegen_status_name(int32_t status);

// Opens the ONNX file at `path`. `options` may be null. A scheduler_config.json beside the file is read if there is
// no other noise schedule. Free the model with `edgegen_model_free`.
edgegen_status edgegen_model_open(const char *path,
                                  const struct edgegen_model_options *options,
                                  struct edgegen_model **model,
                                  struct edgegen_error *error);

// Opens an ONNX model that is in memory, such as one linked into the firmware. The memory may be freed afterwards.
edgegen_status edgegen_model_from_memory(const uint8_t *bytes,
                                         size_t len,
                                         const struct edgegen_model_options *options,
                                         struct edgegen_model **model,
                                         struct edgegen_error *error);

// Opens the model that is built into the library, which draws 28×28 garments of ten classes. It is there to try
// things with; a library built without it answers EDGEGEN_STATUS_UNSUPPORTED.
edgegen_status edgegen_model_embedded(struct edgegen_model **model,
                                      struct edgegen_error *error);

// Frees a model and sets the caller's pointer to null. Generators made from it stay usable. Null, or a pointer to
// null, is OK and does nothing.
edgegen_status edgegen_model_free(struct edgegen_model **model,
                                  struct edgegen_error *error);

// Says what a model is.
edgegen_status edgegen_model_describe(const struct edgegen_model *model,
                                      struct edgegen_model_info *info,
                                      struct edgegen_error *error);

// Says what input number `index` of a model is, from 0.
edgegen_status edgegen_model_input(const struct edgegen_model *model,
                                   size_t index,
                                   struct edgegen_input *input,
                                   struct edgegen_error *error);

// Writes the name of class `index` of a model to `name`; it lives as long as the model.
edgegen_status edgegen_model_class_name(const struct edgegen_model *model,
                                        size_t index,
                                        const char **name,
                                        struct edgegen_error *error);

// Writes the index of the class called `name`, in any case of letters, to `index`.
edgegen_status edgegen_model_class_index(const struct edgegen_model *model,
                                         const char *name,
                                         int32_t *index,
                                         struct edgegen_error *error);

// Fills `options` in with what suits `model`.
edgegen_status edgegen_options_init(const struct edgegen_model *model,
                                    struct edgegen_options *options,
                                    struct edgegen_error *error);

// Writes the bytes that a generator with these options works in to `bytes`, beside those of the model
// (`weight_bytes`). `options` may be null.
edgegen_status edgegen_memory_needed(const struct edgegen_model *model,
                                     const struct edgegen_options *options,
                                     size_t *bytes,
                                     struct edgegen_error *error);

// Makes a generator and does all that a first run would: allocates, touches every page, and runs a step. After this,
// `edgegen_generate` neither allocates nor waits for a lock nor calls the system but for the clock, if the model has a
// plan and the sampler is one of fixed steps; several threads also wake each other. `options` may be null. Free the
// generator with `edgegen_generator_free`.
edgegen_status edgegen_prepare(const struct edgegen_model *model,
                               const struct edgegen_options *options,
                               struct edgegen_generator **generator,
                               struct edgegen_error *error);

// Frees a generator and sets the caller's pointer to null. One that is in use stays, and the answer is
// EDGEGEN_STATUS_BUSY. Null, or a pointer to null, is OK and does nothing.
edgegen_status edgegen_generator_free(struct edgegen_generator **generator, struct edgegen_error *error);

// Makes a sample into `out`, which holds `out_len` floats: `sample_len` of the model. `outcome` may be null. After
// anything but EDGEGEN_STATUS_OK, `out` is as it was.
edgegen_status edgegen_generate(struct edgegen_generator *generator,
                                const struct edgegen_request *request,
                                float *out,
                                size_t out_len,
                                struct edgegen_outcome *outcome,
                                struct edgegen_error *error);

// Makes a policy of a model whose samples are plans, actions of shape [T, D], and does all that a first plan would.
// `options` say how plans are sampled; both options may be null. Free the policy with `edgegen_policy_free`.
edgegen_status edgegen_policy_prepare(const struct edgegen_model *model,
                                      const struct edgegen_options *options,
                                      const struct edgegen_policy_options *policy_options,
                                      struct edgegen_policy **policy,
                                      struct edgegen_error *error);

// Ends a policy's thread, after the network call under way, frees it and sets the caller's pointer to null. One that is in
// use stays, and the answer is EDGEGEN_STATUS_BUSY. Null, or a pointer to null, is OK and does nothing.
edgegen_status edgegen_policy_free(struct edgegen_policy **policy,
                                   struct edgegen_error *error);

// Writes the number of actions of a plan to `horizon`, and that of the numbers of an action to `action_len`. Either may be
// null.
edgegen_status edgegen_policy_describe(const struct edgegen_policy *policy,
                                       size_t *horizon,
                                       size_t *action_len,
                                       struct edgegen_error *error);

// Makes a first plan of an observation and waits for it: before the loop begins, so that its first step has an action.
edgegen_status edgegen_policy_prime(struct edgegen_policy *policy,
                                    const struct edgegen_observation *observation,
                                    struct edgegen_error *error);

// The action of the next control step into `action`, which holds `action_len` floats. To be called once a step. A null
// `observation` is a dropped frame, for which the last one stands. `step` may be null.
//
// With EDGEGEN_TIMING_ASYNCHRONOUS it never waits, neither allocates nor takes a lock, and calls the system at most to wake
// the thread that plans. After an error of the observation's nothing has changed. After one of a plan that failed, told once,
// or EDGEGEN_STATUS_NO_ACTION the step has passed, and `action` is what is to be done all the same: what the last plan has
// for it, else what `when_dry` says, else the last action.
edgegen_status edgegen_policy_act(struct edgegen_policy *policy,
                                  const struct edgegen_observation *observation,
                                  float *action,
                                  size_t action_len,
                                  struct edgegen_step *step,
                                  struct edgegen_error *error);

// Begins anew, as at the start of an episode: without observations, plans, actions and counts.
edgegen_status edgegen_policy_reset(struct edgegen_policy *policy,
                                    uint64_t seed,
                                    struct edgegen_error *error);

// Says what the control steps so far came to.
edgegen_status edgegen_policy_count(const struct edgegen_policy *policy,
                                    struct edgegen_policy_stats *stats,
                                    struct edgegen_error *error);

// Opens the decoder at `path`, an ONNX file or the folder that holds it as model.onnx, for the samples of `model`.
// `options` may be null. Free it with `edgegen_decoder_free`.
edgegen_status edgegen_decoder_open(const char *path,
                                    const struct edgegen_model *model,
                                    const struct edgegen_decoder_options *options,
                                    struct edgegen_decoder **decoder,
                                    struct edgegen_error *error);

// Frees a decoder and sets the caller's pointer to null. One that is in use stays, and the answer is EDGEGEN_STATUS_BUSY.
// Null, or a pointer to null, is OK and does nothing.
edgegen_status edgegen_decoder_free(struct edgegen_decoder **decoder,
                                    struct edgegen_error *error);

// Says what a decoder makes.
edgegen_status edgegen_decoder_describe(const struct edgegen_decoder *decoder,
                                        struct edgegen_decoder_info *info,
                                        struct edgegen_error *error);

// Makes a picture of a sample into `picture`, which holds `picture_len` floats. After anything but EDGEGEN_STATUS_OK,
// `picture` is as it was.
edgegen_status edgegen_decode(struct edgegen_decoder *decoder,
                              const float *sample,
                              size_t sample_len,
                              float *picture,
                              size_t picture_len,
                              struct edgegen_error *error);

// The interface that the library was built with: compare it with EDGEGEN_ABI_VERSION, once, if the library is shared.
uint32_t edgegen_abi_version(void);

// The library's version, such as "0.1.0".
const char *edgegen_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EDGEGEN_H */
