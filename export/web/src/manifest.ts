import { badPack, EdgeViTError } from "./errors.js";
import { Field } from "./fields.js";

/** Newest version of manifests that is understood. */
const NEWEST = 3;
const MOST_BYTES = 16 << 20;
const MOST_EDGE = 8192;
const MOST_PIXELS = 4096 * 4096;
const MOST_NUMBERS = 1 << 26;

const INTERPOLATIONS = ["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"] as const;
const ORDERS = ["RGB", "BGR", "L"] as const;
const FITS = ["short", "squash", "cover", "contain", "none"] as const;
const ROUNDINGS = ["nearest", "down", "half up"] as const;
const PADS = ["around", "after", "square"] as const;
const ACTIVATIONS = ["softmax", "sigmoid"] as const;

export interface PreprocessSpec {
  size: [number, number];
  resize: number | null;
  interpolation: (typeof INTERPOLATIONS)[number];
  mean: number[];
  std: number[];
  channel_order: (typeof ORDERS)[number];
  fit: (typeof FITS)[number];
  box: [number, number] | null;
  fill: number[] | null;
  rounding: (typeof ROUNDINGS)[number];
  longest: number | null;
  pad: (typeof PADS)[number];
  crop: [number, number] | null;
}

export interface FileSpec {
  path: string;
  sha256: string;
  bytes: number;
}

export interface VariantSpec {
  name: string;
  precision: string;
  backend: string;
  versions: string | null;
  files: FileSpec[];
  /** Whether it kept what was asked for; null where that was not measured. */
  passed: boolean | null;
}

export interface OutputSpec {
  name: string;
  kind: string;
  shape: number[];
  labels: string[];
  activation: (typeof ACTIVATIONS)[number];
}

/** What is used of a manifest; docs/manifest.schema.json describes all of it. */
export interface Manifest {
  name: string;
  classes: number;
  preprocess: PreprocessSpec;
  labels: string[];
  activation: (typeof ACTIVATIONS)[number];
  variants: VariantSpec[];
  outputs: OutputSpec[] | null;
}

/** Reads a manifest; each field that is used is looked at first. */
export function readManifest(content: Uint8Array): Manifest {
  if (content.length > MOST_BYTES) throw badPack("the manifest is too large");
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content));
  } catch (error) {
    throw badPack(`the manifest is not valid: ${error instanceof Error ? error.message : String(error)}`);
  }
  const from = new Field(json, "$");
  const version = from.get("schema_version").whole(1, Number.MAX_SAFE_INTEGER);
  if (version > NEWEST)
    throw new EdgeViTError(
      `the pack has schema version ${version}, and this package knows versions up to ${NEWEST}`,
      "install a newer version of the npm package edgevit",
    );
  const spec = from.get("spec").optional((field) => field) ?? from.get("graph");
  const found = {
    name: from.get("name").text(),
    classes: spec.get("classes").optional((field) => field.whole(0, MOST_NUMBERS)) ?? 0,
    preprocess: preprocessOf(from.get("preprocess")),
    labels: from.get("labels").list((field) => field.text()),
    activation: activationOf(from),
    variants: from.get("variants").list(variantOf, 4096),
    outputs: from.get("outputs").optional((field) => field.list(outputOf, 4096)),
  };
  checkNames("variants", found.variants);
  if (found.outputs?.length === 0) found.outputs = null; // as EdgeViT's Python reads it
  if (found.outputs !== null) checkOutputs(found.outputs);
  return found;
}

/** Reads how images are prepared; what its fields say together, Preprocess checks. */
export function preprocessOf(from: Field): PreprocessSpec {
  const edge = (field: Field) => field.whole(1, MOST_EDGE);
  const edges = (field: Field) => field.pair(1, MOST_EDGE);
  const size = from.get("size").pair(1, MOST_EDGE);
  if (size[0] * size[1] > MOST_PIXELS) throw badPack(`images of ${size[0]}x${size[1]} are larger than any model takes`);
  return {
    size,
    resize: from.get("resize").optional(edge),
    interpolation: from.get("interpolation").optional((field) => field.oneOf(INTERPOLATIONS)) ?? "bicubic",
    mean: from.get("mean").list((field) => field.number(), 3),
    std: from.get("std").list((field) => field.number(), 3),
    channel_order: from.get("channel_order").optional((field) => field.oneOf(ORDERS)) ?? "RGB",
    fit: from.get("fit").optional((field) => field.oneOf(FITS)) ?? "short",
    box: from.get("box").optional(edges),
    fill: from.get("fill").optional((field) => field.list((level) => level.whole(0, 255), 3)),
    rounding: from.get("rounding").optional((field) => field.oneOf(ROUNDINGS)) ?? "nearest",
    longest: from.get("longest").optional((field) => field.whole(1, MOST_EDGE)),
    pad: from.get("pad").optional((field) => field.oneOf(PADS)) ?? "around",
    crop: from.get("crop").optional(edges),
  };
}

function variantOf(from: Field): VariantSpec {
  return {
    name: from.get("name").matching(/^[a-z0-9][a-z0-9_-]{0,127}$/),
    precision: from.get("precision").text(64),
    backend: from.get("backend").text(64),
    versions: from.get("versions").optional((field) => field.text(128)),
    files: from.get("files").list(
      (file) => ({
        path: file.get("path").text(512),
        sha256: file.get("sha256").matching(/^[0-9a-f]{64}$/),
        bytes: file.get("bytes").whole(0, Number.MAX_SAFE_INTEGER),
      }),
      4096,
    ),
    passed: from.get("accuracy").optional((field) => field.get("passed").boolean()),
  };
}

function outputOf(from: Field): OutputSpec {
  return {
    name: from.get("name").matching(/^[A-Za-z0-9_./:[\]-]{1,200}$/),
    kind: from.get("kind").text(64),
    shape: from.get("shape").list((field) => field.whole(1, MOST_NUMBERS), 8),
    labels: from.get("labels").optional((field) => field.list((label) => label.text())) ?? [],
    activation: activationOf(from),
  };
}

function activationOf(from: Field): (typeof ACTIVATIONS)[number] {
  return from.get("activation").optional((field) => field.oneOf(ACTIVATIONS)) ?? "softmax";
}

function checkNames(what: string, named: { name: string }[]): void {
  if (new Set(named.map(({ name }) => name)).size < named.length) throw badPack(`the manifest is not valid: two ${what} have the same name`);
}

function checkOutputs(outputs: OutputSpec[]): void {
  checkNames("outputs", outputs);
  let numbers = 0;
  for (const { name, kind, shape, labels } of outputs) {
    const size = shape.reduce((one, other) => one * other, 1);
    numbers += size;
    if (shape.length === 0 || (labels.length > 0 && (kind !== "logits" || shape.length > 1 || labels.length !== Math.max(2, size))))
      throw badPack(`the manifest is not valid: the output ${name} has ${labels.length} labels and the shape ${shape.join("x")}`);
  }
  if (numbers > MOST_NUMBERS) throw badPack("the manifest is not valid: its outputs are larger than any model's");
}
