/* A device: serves a model, trains it one step, reads the update.
 *
 *   device program.safetensors parameters.safetensors
 */
#include <stdio.h>
#include <stdlib.h>
#include "fledgling.h"

#define EXAMPLES 4

static FlError error;

static void stop(void) {
    fprintf(stderr, "error: %s\n", error.message);
    exit(1);
}

/* A whole file, at a multiple of 64 bytes. */
static uint8_t *contents(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = aligned_alloc(64, (*length + 63) / 64 * 64);
    if (!bytes || fread(bytes, 1, *length, file) != *length) { perror(path); exit(1); }
    fclose(file);
    return bytes;
}

int main(int count, char **names) {
    if (count != 3 || fl_interface() != FL_INTERFACE) return 2;
    size_t length;
    uint8_t *program = contents(names[1], &length);
    FlModel *model = fl_model_open(program, length, 1, &error);
    if (!model) stop();
    size_t inputs = fl_model_input_len(model), outputs = fl_model_output_len(model);
    float *x = malloc(EXAMPLES * inputs * sizeof *x), *y = malloc(EXAMPLES * outputs * sizeof *y);
    uint32_t labels[EXAMPLES];
    for (size_t i = 0; i < EXAMPLES * inputs; i++) x[i] = (float)(i % 17) / 16;
    for (size_t i = 0; i < EXAMPLES; i++) labels[i] = (uint32_t)(i % outputs);
    if (fl_model_run(model, x, EXAMPLES, y, &error)) stop();
    for (size_t i = 0; i < EXAMPLES * outputs; i++) printf("%.9g\n", y[i]);
    fl_model_close(model);

    uint8_t *parameters = contents(names[2], &length);
    FlTrainer *trainer = fl_trainer_open(parameters, length, &error);
    if (!trainer) stop();
    FlPlan plan = {.learning_rate = 0.1f, .momentum = 0.9f, .round = 1, .client = 7};
    if (fl_trainer_begin(trainer, &plan, EXAMPLES, &error)) stop();
    double loss;
    if (fl_trainer_step(trainer, x, labels, EXAMPLES, &loss, &error)) stop();
    size_t size = fl_trainer_parameters(trainer);
    float *update = malloc(size * sizeof *update);
    if (fl_trainer_update(trainer, update, size, &error)) stop();
    printf("%.17g\n", loss);
    for (size_t i = 0; i < size; i++) printf("%.9g\n", update[i]);
    fl_trainer_close(trainer);
    free(update), free(x), free(y), free(program), free(parameters);
    return 0;
}
