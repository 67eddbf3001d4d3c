/* Says what is on JPEG files: classify_jpeg PACK FILE...
 *
 * cc classify_jpeg.c -ledgevit -ljpeg -o classify_jpeg     (sudo apt install libjpeg62-turbo-dev)
 */
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include "edgevit/edgevit.h"

/* libjpeg ends the program on a damaged file; an app with other wishes sets an error handler of its own. */
static uint8_t *read_jpeg(const char *path, edgevit_image *image) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  const size_t stride = (size_t)jpeg.output_width * 3;
  uint8_t *pixels = malloc(stride * jpeg.output_height);
  while (pixels && jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = pixels + stride * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  *image = (edgevit_image){pixels, (int32_t)jpeg.output_width, (int32_t)jpeg.output_height, stride, EDGEVIT_RGB};
  if (pixels) jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  fclose(file);
  return pixels;
}

int main(int count, char **arguments) {
  edgevit_model *model = NULL;
  if (count < 3 || edgevit_open(arguments[1], NULL, &model)) {
    fprintf(stderr, "%s\n", count < 3 ? "usage: classify_jpeg PACK FILE..." : edgevit_last_error());
    return 1;
  }
  printf("%s on %s\n", edgevit_variant(model), edgevit_engine(model));
  for (int at = 2; at < count; ++at) {
    edgevit_image image;
    edgevit_prediction best[3];
    size_t found = 0;
    uint8_t *pixels = read_jpeg(arguments[at], &image);
    if (!pixels || edgevit_predict(model, &image, best, 3, &found)) {
      fprintf(stderr, "%s: %s\n", arguments[at], pixels ? edgevit_last_error() : "cannot be read");
      free(pixels);
      continue;
    }
    printf("%s\n", arguments[at]);
    for (size_t each = 0; each < found; ++each) {
      const char *label = edgevit_label(model, (size_t)best[each].index);
      printf("  %5.1f %%  %s\n", 100 * (double)best[each].probability, label ? label : "?");
    }
    free(pixels);
  }
  edgevit_close(model);
  return 0;
}
