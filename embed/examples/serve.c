/* Serves a model: all that the minimal library does.
 *
 *   serve program.safetensors
 */
#include <stdio.h>
#include <stdlib.h>
#include "fledgling.h"

int main(int count, char **names) {
    static _Alignas(64) uint8_t bytes[1 << 24];
    FlError error;
    FILE *file = count == 2 ? fopen(names[1], "rb") : NULL;
    if (!file) return 2;
    size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    FlModel *model = fl_model_open(bytes, length, 1, &error);
    if (!model) {
        fprintf(stderr, "error: %s\n", error.message);
        return 1;
    }
    size_t inputs = fl_model_input_len(model);
    float *x = malloc(inputs * sizeof *x), *y = malloc(fl_model_output_len(model) * sizeof *y);
    for (size_t i = 0; i < inputs; i++) x[i] = (float)(i % 17) / 16;
    if (fl_model_run(model, x, 1, y, &error)) return 1;
    for (size_t i = 0; i < fl_model_output_len(model); i++) printf("%.9g\n", y[i]);
    fl_model_close(model);
    free(x), free(y);
    return 0;
}
