/* Answers to raw pixels from a file, as the tests do: edgevit-raw PACK VARIANT|- FORMAT WIDTH HEIGHT STRIDE FILE
 * prints the engine, the input and the values as JSON. FORMAT is rgb, bgr, grey, rgba or bgra. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgevit/edgevit.h"

static int failed(edgevit_status status) {
  fprintf(stderr, "error %d: %s\n", (int)status, edgevit_last_error());
  return (int)status;
}

static void print_numbers(const char *name, const float *values, size_t count) {
  printf("\"%s\": [", name);
  for (size_t at = 0; at < count; ++at) printf("%s%.9g", at ? ", " : "", (double)values[at]);
  printf("]");
}

int main(int count, char **arguments) {
  static const char *const formats[] = {"rgb", "bgr", "grey", "rgba", "bgra"};
  if (count != 8) {
    fprintf(stderr, "usage: %s PACK VARIANT|- FORMAT WIDTH HEIGHT STRIDE FILE\n", arguments[0]);
    return EDGEVIT_BAD_ARGUMENT;
  }
  edgevit_image image = {0};
  image.format = (edgevit_format)-1;
  for (int at = 0; at < 5; ++at)
    if (strcmp(arguments[3], formats[at]) == 0) image.format = (edgevit_format)at;
  image.width = atoi(arguments[4]);
  image.height = atoi(arguments[5]);
  image.stride = (size_t)atol(arguments[6]);
  FILE *file = fopen(arguments[7], "rb");
  if (!file) {
    perror(arguments[7]);
    return EDGEVIT_BAD_ARGUMENT;
  }
  fseek(file, 0, SEEK_END);
  const long size = ftell(file);
  rewind(file);
  uint8_t *pixels = malloc(size > 0 ? (size_t)size : 1);
  if (!pixels || fread(pixels, 1, (size_t)size, file) != (size_t)size) return EDGEVIT_FAILED;
  fclose(file);
  image.pixels = pixels;

  edgevit_options options = {sizeof options, NULL, NULL, 1};
  if (strcmp(arguments[2], "-") != 0) options.variant = arguments[2];
  edgevit_model *model = NULL;
  edgevit_status status = edgevit_open(arguments[1], &options, &model);
  if (status) return failed(status);
  const size_t inputs = edgevit_input_values(model), values = edgevit_values(model);
  float *input = malloc(inputs * sizeof *input), *output = malloc(values * sizeof *output);
  if (!input || !output) return EDGEVIT_FAILED;
  if ((status = edgevit_prepare(model, &image, input, inputs))) return failed(status);
  if ((status = edgevit_infer(model, &image, output, values))) return failed(status);
  printf("{\"engine\": \"%s\", \"variant\": \"%s\", ", edgevit_engine(model), edgevit_variant(model));
  print_numbers("input", input, inputs);
  printf(", ");
  print_numbers("values", output, values);
  if (edgevit_labels(model)) {
    edgevit_prediction best[3];
    size_t found = 0;
    if ((status = edgevit_predict(model, &image, best, 3, &found))) return failed(status);
    printf(", \"best\": [");
    for (size_t at = 0; at < found; ++at) printf("%s[%d, %.9g]", at ? ", " : "", best[at].index, (double)best[at].probability);
    printf("]");
  }
  printf("}\n");
  edgevit_close(model);
  free(input);
  free(output);
  free(pixels);
  return 0;
}
