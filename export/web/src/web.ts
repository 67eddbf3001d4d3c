/** For browsers, on onnxruntime-web's WebAssembly. */
import * as ort from "onnxruntime-web/wasm";

import { EdgeViTError } from "./errors.js";
import { load as loadWith, type LoadOptions, type Model } from "./model.js";
import type { Pixels } from "./preprocess.js";

export { EdgeViTError } from "./errors.js";
export { type LoadOptions, Model, type Prediction } from "./model.js";
export type { Pixels } from "./preprocess.js";

/** Opens a pack from its address, a file that the user chose, or memory. */
export async function load(pack: string | URL | Blob | ArrayBuffer, options: LoadOptions = {}): Promise<Model> {
  if (pack instanceof ArrayBuffer) return loadWith(ort as never, pack, options);
  if (pack instanceof Blob) return loadWith(ort as never, await pack.arrayBuffer(), options);
  const response = await fetch(pack);
  if (!response.ok) throw new EdgeViTError(`the pack cannot be fetched: ${response.status}`, "check its address");
  return loadWith(ort as never, await response.arrayBuffer(), options);
}

/** The pixels of what a browser can draw: a photo that was chosen or dropped, an <img>, a <video>, a canvas. */
export async function pixelsOf(source: Blob | HTMLImageElement | HTMLVideoElement | HTMLCanvasElement): Promise<Pixels> {
  // Upright as the camera says, with neither colours nor alpha changed: as Pillow decodes.
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  try {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new EdgeViTError("this browser gives no canvas", "use a newer browser");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}
