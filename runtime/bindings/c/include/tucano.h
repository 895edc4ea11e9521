/* Runs Tucano's weight blobs on a host. Link with libtucano_c.
 *
 *     tucano_runner *runner;
 *     if (tucano_open(blob, blob_bytes, NULL, &runner) != TUCANO_OK) { puts(tucano_message()); return 1; }
 *     tucano_set_input(runner, 0, pixels, pixel_count);
 *     tucano_invoke(runner);
 *     tucano_get_output(runner, 0, scores, score_count);
 *     tucano_close(runner);
 *
 * Every function that returns a tucano_status leaves a text for people in tucano_message() if it is not TUCANO_OK. A runner may move between threads, but
 * only one may use it at a time; several runners are independent. */
#ifndef TUCANO_H
#define TUCANO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A blob with all that is needed to run it. */
typedef struct tucano_runner tucano_runner;

typedef enum tucano_status {
    TUCANO_OK = 0,
    TUCANO_NULL = 1,     /* a pointer that must not be null is */
    TUCANO_BLOB = 2,     /* the blob is not sound */
    TUCANO_BACKEND = 3,  /* this machine has no backend of that name */
    TUCANO_TERMINAL = 4, /* there is no such input or output */
    TUCANO_DATA = 5,     /* wrong length, or a number that is not finite */
    TUCANO_RUN = 6,      /* the run failed: a fault of the library */
    TUCANO_PANIC = 7     /* a fault of the library; the runner must be closed */
} tucano_status;

typedef enum tucano_direction { TUCANO_INPUT = 0, TUCANO_OUTPUT = 1 } tucano_direction;

typedef enum tucano_type { TUCANO_F32 = 0, TUCANO_I8 = 1, TUCANO_I16 = 2, TUCANO_OTHER = 3 } tucano_type;

/* An input or output. `shape` is that of the source model; stored elements may stand in another order (tucano_set_input and tucano_get_output apply it).
 * A stored integer means scale * (stored - zero_point). */
typedef struct tucano_terminal {
    uint32_t rank;
    uint32_t shape[4];
    uint32_t elements;
    uint32_t bytes; /* as stored */
    uint32_t type;  /* a tucano_type, as stored */
    float scale;
    int32_t zero_point;
} tucano_terminal;

/* Text of the last failure on this thread, "" if there was none; valid until the next call on this thread. */
const char *tucano_message(void);

/* Checks a blob, copies it, and prepares it for a backend: NULL for the fastest of this machine, else a name such as "scalar". */
tucano_status tucano_open(const uint8_t *blob, size_t length, const char *backend, tucano_runner **runner);

/* Frees a runner; NULL does nothing. */
void tucano_close(tucano_runner *runner);

/* Name of the backend that runs it, valid as long as the runner; NULL for NULL. */
const char *tucano_backend(const tucano_runner *runner);

/* Number of inputs or outputs; 0 for NULL. */
size_t tucano_count(const tucano_runner *runner, tucano_direction direction);

/* Describes an input or output. */
tucano_status tucano_describe(const tucano_runner *runner, tucano_direction direction, size_t index, tucano_terminal *terminal);

/* Stores real numbers in the source model's order of axes: permuted, and rounded for an integer input. A run may change inputs: set all before every run. */
tucano_status tucano_set_input(tucano_runner *runner, size_t index, const float *data, size_t elements);

/* As tucano_set_input, with the bytes that a device stores. */
tucano_status tucano_set_input_raw(tucano_runner *runner, size_t index, const uint8_t *data, size_t bytes);

/* Runs, without an allocation. */
tucano_status tucano_invoke(tucano_runner *runner);

/* Fetches real numbers in the source model's order of axes. */
tucano_status tucano_get_output(const tucano_runner *runner, size_t index, float *data, size_t elements);

/* As tucano_get_output, with the bytes that a device stores. */
tucano_status tucano_get_output_raw(const tucano_runner *runner, size_t index, uint8_t *data, size_t bytes);

/* Zeroes what a model keeps from run to run. */
tucano_status tucano_reset(tucano_runner *runner);

#ifdef __cplusplus
}
#endif

#endif
