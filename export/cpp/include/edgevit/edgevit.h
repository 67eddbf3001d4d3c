/* EdgeViT's runtime for C, and for all that binds to C: opens a pack or bundle, and answers to images.
 *
 * Every function that can fail returns a status. What went wrong, and what to do, edgevit_last_error() says in the same
 * thread. A model may be used by any number of threads at once; only edgevit_close() must be the last call.
 */
#ifndef EDGEVIT_H
#define EDGEVIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EDGEVIT_API __declspec(dllexport)
#else
#define EDGEVIT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEVIT_API_VERSION 1

typedef struct edgevit_model edgevit_model;

typedef enum {
  EDGEVIT_OK = 0,
  EDGEVIT_BAD_ARGUMENT = 1, /* what the application gave cannot be used */
  EDGEVIT_BAD_BUNDLE = 2,   /* the pack or bundle is missing, damaged, unsafe or too new */
  EDGEVIT_MISSING = 3,      /* the engine is not here, or in a version that does not serve the model */
  EDGEVIT_FAILED = 4        /* the engine failed */
} edgevit_status;

/* How pixels lie in memory: 8 bits a channel, rows from the top, channels side by side. */
typedef enum {
  EDGEVIT_RGB = 0,
  EDGEVIT_BGR = 1,
  EDGEVIT_GREY = 2,
  EDGEVIT_RGBA = 3, /* the fourth channel is not looked at */
  EDGEVIT_BGRA = 4
} edgevit_format;

/* An image: height rows of width pixels, each row `stride` bytes behind the one before; 0 for rows without a gap. */
typedef struct {
  const uint8_t *pixels;
  int32_t width;
  int32_t height;
  size_t stride;
  edgevit_format format;
} edgevit_image;

/* How a model is opened; zeros, or NULL for all of them, are good defaults. `size` is sizeof(edgevit_options). */
typedef struct {
  size_t size;
  const char *variant;     /* by name; NULL for the fastest that passed and can run here */
  const char *onnxruntime; /* path of onnxruntime's library; NULL for $EDGEVIT_ONNXRUNTIME, or the system's */
  int32_t threads;         /* 0 leaves their number to the engine */
} edgevit_options;

typedef struct {
  int32_t index;     /* of the label */
  float probability; /* of the softmax, or of the label's own sigmoid */
} edgevit_prediction;

/* An output: its name and shape for one image; `values` are how many numbers that is. */
typedef struct {
  const char *name;
  const int64_t *shape;
  size_t rank;
  size_t values;
} edgevit_output;

EDGEVIT_API int edgevit_api_version(void);

/* Opens the pack, or the folder of a bundle, at `path`; each file that is used is checked against its SHA-256. */
EDGEVIT_API edgevit_status edgevit_open(const char *path, const edgevit_options *options, edgevit_model **model);
EDGEVIT_API void edgevit_close(edgevit_model *model);

/* Writes the `capacity` likeliest classes of an image, the likeliest first, and how many that are. */
EDGEVIT_API edgevit_status edgevit_predict(edgevit_model *model, const edgevit_image *image,
                                           edgevit_prediction *predictions, size_t capacity, size_t *count);

/* Writes the logits, features, or all outputs one after the other; `capacity` is at least edgevit_values(). */
EDGEVIT_API edgevit_status edgevit_infer(edgevit_model *model, const edgevit_image *image, float *values,
                                         size_t capacity);

/* Writes the model's input (channels, height, width), resized and normalised; `capacity` is edgevit_input_values(). */
EDGEVIT_API edgevit_status edgevit_prepare(edgevit_model *model, const edgevit_image *image, float *input,
                                           size_t capacity);

EDGEVIT_API size_t edgevit_values(const edgevit_model *model);
EDGEVIT_API size_t edgevit_input_values(const edgevit_model *model);
EDGEVIT_API size_t edgevit_labels(const edgevit_model *model);
/* The text of a label in UTF-8, as long as the model is open; NULL where there is none. */
EDGEVIT_API const char *edgevit_label(const edgevit_model *model, size_t index);
EDGEVIT_API size_t edgevit_outputs(const edgevit_model *model);
EDGEVIT_API edgevit_status edgevit_output_at(const edgevit_model *model, size_t index, edgevit_output *output);
EDGEVIT_API const char *edgevit_variant(const edgevit_model *model);
EDGEVIT_API const char *edgevit_engine(const edgevit_model *model); /* such as "onnxruntime 1.31.1" */

/* What the last call that failed in this thread has to say; never NULL. */
EDGEVIT_API const char *edgevit_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
