/* Fledgling's edge runtime: serve a model file, and train one, on a device.
 *
 * The library starts no thread, opens no file and keeps no global state. An object may be passed
 * between threads and is used by one at a time. Every pointer must lead to as many values as the
 * call says; a null pointer is an error with a message, never a crash. `error` may always be null.
 *
 * The bytes of a model file stay the app's: they must not change, move or vanish while an object
 * that was opened with them is open. Begin them at a multiple of 64 bytes and they are not copied.
 */
#ifndef FLEDGLING_H
#define FLEDGLING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What `fl_interface` returns for this header. */
#define FL_INTERFACE 1

typedef enum FlStatus {
    FL_OK = 0,
    FL_ARGUMENT = 1, /* an argument is wrong */
    FL_FILE = 2,     /* the model file is damaged, of another kind, or none */
    FL_EXAMPLE = 3   /* an example holds a label or token that the model does not know */
} FlStatus;

typedef struct FlError {
    int32_t status;
    char message[248]; /* ends with a zero */
} FlError;

typedef struct FlModel FlModel;     /* a model that is served */
typedef struct FlTrainer FlTrainer; /* a client's training */

uint32_t fl_interface(void);

/* Opens a model file: a program of any precision that the library was built with or, in the full
 * library, parameters, which are served in 32-bit floats. With `verify` all checksums are compared,
 * which reads the whole file. Null on failure. */
FlModel *fl_model_open(const uint8_t *bytes, size_t length, int32_t verify, FlError *error);
void fl_model_close(FlModel *model);

/* Values of one example, and outputs for one. */
size_t fl_model_input_len(const FlModel *model);
size_t fl_model_output_len(const FlModel *model);
/* How many tokens there are; 0 for a model that takes real numbers. */
size_t fl_model_vocabulary(const FlModel *model);

/* Computes the outputs (logits) of `examples` examples: `inputs` are examples * input_len, `outputs`
 * examples * output_len values. Tokens are below the vocabulary. */
FlStatus fl_model_run(FlModel *model, const float *inputs, size_t examples, float *outputs,
                      FlError *error);
FlStatus fl_model_run_tokens(FlModel *model, const uint32_t *tokens, size_t examples,
                             float *outputs, FlError *error);

/* Training; not in the minimal library. */

typedef struct FlPlan {
    float learning_rate;     /* above 0 */
    float momentum;          /* 0 or more, below 1 */
    float weight_decay;      /* 0 or more */
    float proximal_mu;       /* FedProx, 0 or more */
    float max_gradient_norm; /* 0 for none */
    uint64_t round;
    uint64_t seed;
    uint64_t client;
} FlPlan;

/* Opens a file of parameters, verified. Null on failure. */
FlTrainer *fl_trainer_open(const uint8_t *bytes, size_t length, FlError *error);
void fl_trainer_close(FlTrainer *trainer);
size_t fl_trainer_parameters(const FlTrainer *trainer);

/* Begins at the file's parameters, with room for batches of `batch` examples. */
FlStatus fl_trainer_begin(FlTrainer *trainer, const FlPlan *plan, size_t batch, FlError *error);
/* One step of SGD on a batch; `loss` (may be null) is the mean loss before it. */
FlStatus fl_trainer_step(FlTrainer *trainer, const float *inputs, const uint32_t *labels,
                         size_t examples, double *loss, FlError *error);
FlStatus fl_trainer_step_tokens(FlTrainer *trainer, const uint32_t *tokens, const uint32_t *labels,
                                size_t examples, double *loss, FlError *error);
/* The update, local less global: `length` is fl_trainer_parameters. */
FlStatus fl_trainer_update(FlTrainer *trainer, float *update, size_t length, FlError *error);

#ifdef __cplusplus
}
#endif
#endif
