/** For browsers, on onnxruntime-web's WebAssembly. */
import type { TensorConstructor } from "onnxruntime-common";
import * as ort from "onnxruntime-web/wasm";

import { EdgeViTError } from "./errors.js";
import { checkImageFile, checkSize, MOST_PIXELS, refused, tooLarge } from "./image_file.js";
import { type Engine, load as loadWith, type LoadOptions, type Model } from "./model.js";
import type { Pixels } from "./preprocess.js";

export { EdgeViTError } from "./errors.js";
export { infoOf, type LoadOptions, Model, type PackInfo, type Prediction } from "./model.js";
export type { Pixels } from "./preprocess.js";

const engine: Engine = {
  InferenceSession: ort.InferenceSession,
  Tensor: ort.Tensor as TensorConstructor,
  version: ort.env.versions.web ?? ort.env.versions.common,
  describe() {
    const threads = ort.env.wasm.numThreads ?? 1; // 1 where the page is not isolated from other origins
    return `onnxruntime-web ${ort.env.versions.web}, wasm, ${threads} thread${threads === 1 ? "" : "s"}`;
  },
};

/** Opens a pack from its address, a file that the user chose, or memory. */
export async function load(
  pack: string | URL | Blob | ArrayBuffer | Uint8Array<ArrayBuffer>,
  options: LoadOptions = {},
): Promise<Model> {
  if (pack instanceof ArrayBuffer || pack instanceof Uint8Array) return loadWith(engine, pack, options);
  return loadWith(engine, await (pack instanceof Blob ? read(pack) : fetched(pack)), options);
}

/** Fetches a pack. */
export async function fetched(address: string | URL, options: RequestInit = {}): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(address, options);
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new EdgeViTError(`the pack cannot be fetched: ${message(error)}`, "check its address and the connection");
  }
  throw new EdgeViTError(`the pack cannot be fetched: ${response.status} ${response.statusText}`, "check its address");
}

/** The content of a file that the user chose. */
export async function read(file: Blob): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    throw new EdgeViTError(`the file cannot be read: ${message(error)}`, "choose it again: it was changed or moved, or is too large");
  }
}

/**
 * The pixels of what a browser can draw: a photo that was chosen or dropped, an <img>, a <video>, a canvas. Files are
 * decoded as EdgeViT's Python does: upright as the camera says, and with no conversion of colours. What a browser
 * cannot say exactly is refused: the colours of transparent pixels, and channels of 16 bits.
 */
export async function pixelsOf(source: Blob | HTMLImageElement | HTMLVideoElement | HTMLCanvasElement | ImageBitmap): Promise<Pixels> {
  if (source instanceof Blob) {
    checkSize(source.size);
    checkImageFile(await read(source));
  }
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(source, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    throw refused(`the browser cannot decode it: ${message(error)}`, "it may be damaged or cut short: get it again");
  }
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) throw tooLarge();
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (context === null) throw new EdgeViTError("this browser gives no canvas", "use a newer browser");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, width, height);
    for (let at = 3; at < pixels.data.length; at += 4)
      if (pixels.data[at] !== 255) throw refused("some of it is transparent", "save it without transparency, for example as a JPEG");
    return pixels;
  } finally {
    bitmap.close();
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
