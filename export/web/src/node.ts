/** For Node, on onnxruntime-node. */
import { readFile, stat } from "node:fs/promises";

import type { TensorConstructor } from "onnxruntime-common";
import * as ort from "onnxruntime-node";

import { EdgeViTError } from "./errors.js";
import { type Engine, load as loadWith, type LoadOptions, type Model } from "./model.js";

export { EdgeViTError } from "./errors.js";
export { infoOf, type LoadOptions, Model, type PackInfo, type Prediction } from "./model.js";
export type { Pixels } from "./preprocess.js";

const engine: Engine = {
  InferenceSession: ort.InferenceSession,
  Tensor: ort.Tensor as TensorConstructor,
  version: ort.env.versions.node ?? ort.env.versions.common,
  describe: () => `onnxruntime-node ${ort.env.versions.node}, cpu`,
};

/** Opens the pack at a path, or one that was read already. */
export async function load(pack: string | URL | Uint8Array<ArrayBuffer>, options: LoadOptions = {}): Promise<Model> {
  let content: Uint8Array<ArrayBuffer>;
  try {
    if (!(pack instanceof Uint8Array) && !(await stat(pack)).isFile()) throw new Error("it is no file");
    content = pack instanceof Uint8Array ? pack : new Uint8Array(await readFile(pack));
  } catch (error) {
    throw new EdgeViTError(`the pack cannot be read: ${error instanceof Error ? error.message : String(error)}`, "check its path");
  }
  return loadWith(engine, content, options);
}
