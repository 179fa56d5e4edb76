// Fills an 8-bit grey frame buffer with pictures of one class, one after the other, and writes it as a PGM file.
//
//     gcc -std=c11 frame_filler.c $(pkg-config --cflags --libs edgegen) -o frame_filler
//     ./frame_filler out.pgm [model.onnx]
#include <edgegen.h>
#include <stdio.h>
#include <stdlib.h>

enum { ACROSS = 4, DOWN = 2 };

static void check(edgegen_status status, const edgegen_error *error) {
    if (status == EDGEGEN_STATUS_OK) return;
    fprintf(stderr, "edgegen: %s: %s\n", edgegen_status_name(status), error->message);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: frame_filler OUT.pgm [MODEL.onnx]\n");
        return 2;
    }
    edgegen_error error;
    edgegen_model *model = NULL;
    check(argc > 2 ? edgegen_model_open(argv[2], NULL, &model, &error) : edgegen_model_embedded(&model, &error), &error);

    edgegen_model_info info;
    check(edgegen_model_describe(model, &info, &error), &error);
    if (info.sample_rank != 3 || info.sample_shape[0] != 1) {
        fprintf(stderr, "this example draws grey pictures, [1, height, width]\n");
        return 1;
    }
    const size_t height = info.sample_shape[1], width = info.sample_shape[2];

    edgegen_generator *generator = NULL;
    check(edgegen_prepare(model, NULL, &generator, &error), &error);

    float *sample = malloc(info.sample_len * sizeof *sample);
    unsigned char *frame = calloc(ACROSS * width, DOWN * height);
    if (!sample || !frame) return 1;

    edgegen_request request = {.seed = 7};
    for (size_t i = 0; i < ACROSS * DOWN; i++) {
        request.index = i;
        check(edgegen_generate(generator, &request, sample, info.sample_len, NULL, &error), &error);
        unsigned char *at = frame + (i / ACROSS * height * ACROSS + i % ACROSS) * width;
        for (size_t y = 0; y < height; y++) {
            for (size_t x = 0; x < width; x++) {
                float grey = (sample[y * width + x] - info.value_min) / (info.value_max - info.value_min);
                at[y * ACROSS * width + x] = (unsigned char)(grey <= 0 ? 0 : grey >= 1 ? 255 : 255 * grey + 0.5F);
            }
        }
    }

    FILE *file = fopen(argv[1], "wb");
    if (!file) {
        perror(argv[1]);
        return 1;
    }
    fprintf(file, "P5 %zu %zu 255\n", ACROSS * width, DOWN * height);
    fwrite(frame, 1, ACROSS * width * DOWN * height, file);
    int failed = fclose(file);
    free(frame);
    free(sample);
    edgegen_generator_free(&generator, NULL);
    edgegen_model_free(&model, NULL);
    return failed ? 1 : 0;
}
