/* check BLOB INPUTS OUTPUTS: runs every sample of raw f32 inputs, writes the stored bytes of all outputs. First tries what must be refused. */
#include "tucano.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                                        \
    do {                                                                                                          \
        if (!(condition)) {                                                                                       \
            fprintf(stderr, "line %d: %s; message: %s\n", __LINE__, #condition, tucano_message());                \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)

static uint8_t *read_all(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    REQUIRE(file);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*length + 1);
    REQUIRE(bytes && fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

static void refusals(const uint8_t *blob, size_t length) {
    tucano_runner *runner = (tucano_runner *)1;
    REQUIRE(tucano_open(NULL, 4, NULL, &runner) == TUCANO_NULL && !runner);
    REQUIRE(tucano_open(blob, length, NULL, NULL) == TUCANO_NULL);
    REQUIRE(tucano_open(blob, length / 2, NULL, &runner) == TUCANO_BLOB && !runner);
    REQUIRE(strlen(tucano_message()) > 0);
    REQUIRE(tucano_open(blob, length, "abacus", &runner) == TUCANO_BACKEND && !runner);
    REQUIRE(strstr(tucano_message(), "abacus"));
    REQUIRE(tucano_invoke(NULL) == TUCANO_NULL);
    REQUIRE(tucano_count(NULL, TUCANO_INPUT) == 0 && tucano_backend(NULL) == NULL);
    tucano_close(NULL);

    REQUIRE(tucano_open(blob, length, "scalar", &runner) == TUCANO_OK && runner);
    REQUIRE(strlen(tucano_message()) == 0 && strcmp(tucano_backend(runner), "scalar") == 0);
    float number = 0;
    tucano_terminal terminal;
    REQUIRE(tucano_describe(runner, TUCANO_INPUT, 7, &terminal) == TUCANO_TERMINAL);
    REQUIRE(tucano_describe(runner, TUCANO_INPUT, 0, NULL) == TUCANO_NULL);
    REQUIRE(tucano_set_input(runner, 0, &number, 1) == TUCANO_DATA);
    REQUIRE(tucano_set_input(runner, 0, NULL, 1) == TUCANO_NULL);
    REQUIRE(tucano_set_input(runner, 70000, &number, 1) == TUCANO_TERMINAL);
    REQUIRE(tucano_set_input_raw(runner, 0, (const uint8_t *)&number, 1) == TUCANO_DATA);
    REQUIRE(tucano_get_output(runner, 0, &number, 1) == TUCANO_DATA);
    REQUIRE(tucano_get_output_raw(runner, 1, (uint8_t *)&number, 1) == TUCANO_TERMINAL);
    tucano_close(runner);
}

int main(int count, char **arguments) {
    REQUIRE(count == 4);
    size_t blob_bytes, input_bytes;
    uint8_t *blob = read_all(arguments[1], &blob_bytes);
    uint8_t *inputs = read_all(arguments[2], &input_bytes);
    refusals(blob, blob_bytes);

    tucano_runner *runner;
    REQUIRE(tucano_open(blob, blob_bytes, NULL, &runner) == TUCANO_OK);
    REQUIRE(tucano_count(runner, TUCANO_INPUT) == 1 && tucano_count(runner, TUCANO_OUTPUT) == 1);
    tucano_terminal input, output;
    REQUIRE(tucano_describe(runner, TUCANO_INPUT, 0, &input) == TUCANO_OK);
    REQUIRE(tucano_describe(runner, TUCANO_OUTPUT, 0, &output) == TUCANO_OK);
    REQUIRE(input_bytes % (4 * input.elements) == 0 && output.type <= TUCANO_I16);

    float *sample = malloc(4 * input.elements), *real = malloc(4 * output.elements);
    uint8_t *stored = malloc(output.bytes);
    REQUIRE(sample && real && stored);
    FILE *file = fopen(arguments[3], "wb");
    REQUIRE(file);
    for (size_t at = 0; at < input_bytes; at += 4 * input.elements) {
        memcpy(sample, inputs + at, 4 * input.elements);
        REQUIRE(tucano_set_input(runner, 0, sample, input.elements) == TUCANO_OK);
        REQUIRE(tucano_invoke(runner) == TUCANO_OK);
        REQUIRE(tucano_get_output_raw(runner, 0, stored, output.bytes) == TUCANO_OK);
        REQUIRE(tucano_get_output(runner, 0, real, output.elements) == TUCANO_OK);
        if (output.type == TUCANO_I8 && output.rank == 2) {
            for (size_t k = 0; k < output.elements; k++)
                REQUIRE(real[k] == (float)(((double)(int8_t)stored[k] - output.zero_point) * (double)output.scale));
        }
        REQUIRE(fwrite(stored, 1, output.bytes, file) == output.bytes);
    }
    REQUIRE(fclose(file) == 0);
    REQUIRE(tucano_reset(runner) == TUCANO_OK);
    tucano_close(runner);
    free(sample), free(real), free(stored), free(blob), free(inputs);
    return 0;
}
