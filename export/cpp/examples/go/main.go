// Says what is on a file of raw RGB pixels: classify PACK WIDTH HEIGHT FILE
//
//	CGO_CFLAGS=-I/usr/local/include CGO_LDFLAGS=-L/usr/local/lib go run main.go pack.edgevit.zip 640 480 frame.rgb
package main

/*
#cgo LDFLAGS: -ledgevit
#include <stdlib.h>
#include "edgevit/edgevit.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"
)

// What the last error says belongs to the thread that made the call: the goroutine stays on it meanwhile.
func checked(call func() C.edgevit_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if call() == C.EDGEVIT_OK {
		return nil
	}
	return errors.New(C.GoString(C.edgevit_last_error()))
}

func run(arguments []string) error {
	if len(arguments) != 5 {
		return errors.New("usage: classify PACK WIDTH HEIGHT FILE")
	}
	width, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	height, err := strconv.Atoi(arguments[3])
	if err != nil {
		return err
	}
	content, err := os.ReadFile(arguments[4])
	if err != nil {
		return err
	}
	if len(content) == 0 || len(content) != 3*width*height {
		return fmt.Errorf("%d bytes are not %dx%d pixels", len(content), width, height)
	}
	path := C.CString(arguments[1])
	defer C.free(unsafe.Pointer(path))
	var model *C.edgevit_model
	if err := checked(func() C.edgevit_status { return C.edgevit_open(path, nil, &model) }); err != nil {
		return err
	}
	defer C.edgevit_close(model)
	pixels := C.CBytes(content)
	defer C.free(pixels)
	image := C.edgevit_image{pixels: (*C.uint8_t)(pixels), width: C.int32_t(width), height: C.int32_t(height)}
	var best [3]C.edgevit_prediction
	var count C.size_t
	err = checked(func() C.edgevit_status { return C.edgevit_predict(model, &image, &best[0], 3, &count) })
	for _, each := range best[:count] {
		fmt.Printf("%.4f %s\n", float64(each.probability), C.GoString(C.edgevit_label(model, C.size_t(each.index))))
	}
	return err
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
