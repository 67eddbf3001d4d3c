import type { InferenceSession, Tensor, TensorConstructor } from "onnxruntime-common";

import { badPack, EdgeViTError } from "./errors.js";
import { type Manifest, type OutputSpec, readManifest, type VariantSpec } from "./manifest.js";
import { checkModelFile } from "./model_file.js";
import { Pack } from "./pack.js";
import { type Pixels, Preprocess } from "./preprocess.js";
import { within } from "./versions.js";

/** What is needed of onnxruntime-node or onnxruntime-web. */
export interface Engine {
  InferenceSession: { create(model: Uint8Array, options?: InferenceSession.SessionOptions): Promise<InferenceSession> };
  Tensor: TensorConstructor;
  /** Its version. */
  version: string;
  /** The package, its version and what computes, once a session was made. */
  describe(): string;
}

export interface LoadOptions {
  /** By name; without it INT8 that was validated, else float32. */
  variant?: string;
  /** What the engine's session is made with, such as `{ intraOpNumThreads: 2 }`. */
  session?: InferenceSession.SessionOptions;
}

/** A class that an image may belong to; `probability` is of the softmax, or of the label's own sigmoid. */
export interface Prediction {
  label: string;
  index: number;
  probability: number;
}

/** Opens a pack with an engine; each file that is used is checked against its SHA-256. */
export async function load(engine: Engine, pack: ArrayBuffer | Uint8Array<ArrayBuffer>, options: LoadOptions = {}): Promise<Model> {
  const opened = new Pack(pack instanceof Uint8Array ? pack : new Uint8Array(pack));
  const manifest = readManifest(opened.file("manifest.json"));
  const variant = chosen(manifest, options.variant);
  if (variant.files.length !== 1)
    throw new EdgeViTError(`variant ${variant.name} keeps weights in files of their own`, "pack another variant");
  if (variant.versions !== null && !within(engine.version, variant.versions))
    throw new EdgeViTError(
      `variant ${variant.name} is for onnxruntime ${variant.versions}, and this is ${engine.version}`,
      "install one of these versions, or load another variant",
    );
  const preprocess = new Preprocess(manifest.preprocess); // before the engine: it says in words what is wrong
  const [file] = variant.files;
  const content = await opened.verified(file.path, file.sha256);
  if (content.length !== file.bytes) throw badPack(`${file.path} has not the size that the manifest says`);
  checkModelFile(content);
  let session: InferenceSession;
  try {
    session = await engine.InferenceSession.create(content, { graphOptimizationLevel: "all", ...options.session });
  } catch (error) {
    throw new EdgeViTError(
      `onnxruntime cannot load variant ${variant.name}: ${error instanceof Error ? error.message : String(error)}`,
      "install a newer onnxruntime, or load another variant",
    );
  }
  return new Model(engine, session, preprocess, manifest, variant);
}

/** What a pack says of itself. */
export interface PackInfo {
  name: string;
  /** Those that onnxruntime runs; `validated` says that they kept what was asked for. */
  variants: { name: string; precision: string; validated: boolean }[];
}

/** Reads what a pack says of itself, without an engine. */
export function infoOf(pack: ArrayBuffer | Uint8Array<ArrayBuffer>): PackInfo {
  const manifest = readManifest(new Pack(pack instanceof Uint8Array ? pack : new Uint8Array(pack)).file("manifest.json"));
  return {
    name: manifest.name,
    variants: manifest.variants
      .filter((variant) => variant.backend === "onnxruntime")
      .map(({ name, precision, passed }) => ({ name, precision, validated: passed === true })),
  };
}

function chosen(manifest: Manifest, named: string | undefined): VariantSpec {
  const names = manifest.variants.map((variant) => variant.name).join(", ");
  const usable = manifest.variants.filter((variant) => variant.backend === "onnxruntime");
  if (named !== undefined) {
    const found = manifest.variants.find((variant) => variant.name === named);
    if (found === undefined) throw new EdgeViTError(`the pack has no variant '${named}'`, `use one of: ${names}`);
    if (!usable.includes(found))
      throw new EdgeViTError(`variant ${named} is for ${found.backend}, which does not run here`, "pack one for onnxruntime");
    return found;
  }
  const validated = usable.find((variant) => variant.precision === "int8" && variant.passed === true);
  const found = validated ?? usable.find((variant) => variant.precision === "float32") ?? usable[0];
  if (found === undefined)
    throw new EdgeViTError(`none of ${names} is for onnxruntime`, "edgevit pack BUNDLE --variant int8-onnxruntime");
  return found;
}

/** A loaded model. Calls may overlap; an engine that cannot compute side by side computes one after the other. */
export class Model {
  /** What it can say of an image: of a single logit no and yes. */
  readonly labels: readonly string[];
  /** Whether each label is decided by itself. */
  readonly independent: boolean;
  readonly variant: string;
  readonly precision: string;
  /** What runs it, such as "onnxruntime-web 1.30.0, wasm, 1 thread". */
  readonly engineName: string;
  readonly outputNames: readonly string[];
  private readonly outputs: readonly OutputSpec[];
  private readonly labelled: OutputSpec | undefined;
  private readonly logits: number;
  private last: Promise<unknown> = Promise.resolve();
  private closed = false;

  /** Made by `load`. */
  constructor(
    private readonly engine: Engine,
    private readonly session: InferenceSession,
    private readonly preprocess: Preprocess,
    manifest: Manifest,
    variant: VariantSpec,
  ) {
    this.variant = variant.name;
    this.precision = variant.precision;
    this.engineName = engine.describe();
    this.outputs = manifest.outputs ?? [plainOutput(manifest)];
    if (session.inputNames.length !== 1 || session.outputNames.length !== this.outputs.length)
      throw badPack("the model has not the input and the outputs that its manifest names");
    this.outputNames = this.outputs.map((output) => output.name);
    this.labelled = this.outputs.find((output) => output.labels.length > 0);
    this.labels = this.labelled?.labels ?? [];
    this.logits = (this.labelled?.shape ?? []).reduce((one, other) => one * other, 1);
    this.independent = this.labelled !== undefined && (this.logits === 1 || this.labelled.activation === "sigmoid");
  }

  /** The model's input (channels, height, width) for an image. */
  prepare(image: Pixels): Float32Array {
    return this.preprocess.prepare(image);
  }

  /** The `top` likeliest classes of an image, the likeliest first. */
  async predict(image: Pixels, { top = 5 }: { top?: number } = {}): Promise<Prediction[]> {
    this.labelledOutput(top);
    return this.decide(await this.run(image), { top });
  }

  /** All outputs for an image by their names, each flat; `shapes` says how they are to be read. */
  async run(image: Pixels): Promise<Record<string, Float32Array>> {
    return this.infer(this.prepare(image));
  }

  /** All outputs for an input that `prepare` made. */
  async infer(input: Float32Array): Promise<Record<string, Float32Array>> {
    const { channels, height, width } = this.preprocess;
    if (!(input instanceof Float32Array) || input.length !== channels * height * width)
      throw new EdgeViTError(
        `the model takes ${channels}x${height}x${width} numbers, not ${input?.length}`,
        "give what prepare() made of an image",
      );
    if (this.closed) throw new EdgeViTError("the model was closed", "load it again");
    const tensor = new this.engine.Tensor("float32", input, [1, channels, height, width]);
    const compute = () => this.session.run({ [this.session.inputNames[0]]: tensor });
    const running = this.last.then(compute, compute);
    this.last = running;
    let given: InferenceSession.ReturnType;
    try {
      given = await running;
    } catch (error) {
      throw new EdgeViTError(
        `onnxruntime failed on variant ${this.variant}: ${error instanceof Error ? error.message : String(error)}`,
        "load another variant, or get the pack again from where it came",
      );
    }
    return Object.fromEntries(
      this.outputs.map((output, at) => [output.name, numbers(given[this.session.outputNames[at]], output)]),
    );
  }

  /** The `top` likeliest classes by the outputs that `run` or `infer` gave. */
  decide(outputs: Record<string, Float32Array>, { top = 5 }: { top?: number } = {}): Prediction[] {
    const { name } = this.labelledOutput(top);
    const given = Object.hasOwn(outputs ?? {}, name) ? outputs[name] : undefined;
    if (!(given instanceof Float32Array) || given.length !== this.logits)
      throw new EdgeViTError(`${name} is not among these outputs, or not as long as it is`, "give what run() or infer() gave");
    const logits = Array.from(given);
    const scores = logits.length === 1 ? [-logits[0], logits[0]] : logits;
    const largest = scores.reduce((one, other) => Math.max(one, other));
    const sum = scores.reduce((whole, score) => whole + Math.exp(score - largest), 0);
    return scores
      .map((score, index) => ({
        label: this.labels[index],
        index,
        probability: this.independent ? 1 / (1 + Math.exp(-score)) : Math.exp(score - largest) / sum,
      }))
      .sort((one, other) => scores[other.index] - scores[one.index])
      .slice(0, top);
  }

  private labelledOutput(top: number): OutputSpec {
    if (this.labelled === undefined)
      throw new EdgeViTError("the model says no classes of an image", `call its run(), which gives ${this.outputNames.join(", ")}`);
    if (!Number.isInteger(top) || top < 1) throw new EdgeViTError(`top is ${top}`, "give a whole number from 1");
    return this.labelled;
  }

  /** The shape of each output for one image; an embedding's is its length. */
  get shapes(): Record<string, readonly number[]> {
    return Object.fromEntries(this.outputs.map((output) => [output.name, output.shape]));
  }

  /** Frees the engine's memory, once what runs is done; what is asked of the model from now on is refused. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.last.catch(() => undefined);
    await this.session.release();
  }
}

function numbers(tensor: Tensor | undefined, output: OutputSpec): Float32Array {
  const found = tensor?.data;
  if (!(found instanceof Float32Array) || !found.every(Number.isFinite))
    throw new EdgeViTError(`${output.name} is no finite numbers`, "load the variant float32");
  const expected = output.shape.reduce((one, other) => one * other, 1);
  if (output.shape.length > 0 && found.length !== expected)
    throw badPack(`${output.name} has ${found.length} numbers, and the manifest says ${expected}`);
  return found;
}

/** The only output of a model whose manifest names none. */
function plainOutput(manifest: Manifest): OutputSpec {
  const { classes, activation } = manifest;
  if (classes === 0) return { name: "embedding", kind: "embedding", shape: [], labels: [], activation };
  let labels = manifest.labels;
  if (classes === 1 && labels.length === 1)
    labels = ["", "0", "1"].includes(labels[0]) ? ["0", "1"] : [`not ${labels[0]}`, labels[0]];
  if (labels.length !== Math.max(2, classes)) throw badPack(`the manifest has ${labels.length} labels for ${classes} classes`);
  return { name: "logits", kind: "logits", shape: [classes], labels, activation };
}
