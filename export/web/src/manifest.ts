import { badPack, EdgeViTError } from "./errors.js";

/** Newest version of manifests that is understood. */
const NEWEST = 2;

export interface PreprocessSpec {
  size: [number, number];
  resize: number | null;
  interpolation: "bicubic" | "bilinear" | "nearest" | "lanczos" | "box" | "hamming";
  mean: number[];
  std: number[];
  channel_order: "RGB" | "BGR" | "L";
  fit: "short" | "squash" | "cover" | "contain" | "none";
  box: [number, number] | null;
  fill: number[] | null;
  rounding: "nearest" | "down" | "half up";
  longest: number | null;
  pad: "around" | "after" | "square";
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
  files: FileSpec[];
  settings: Record<string, string>;
  accuracy: { passed: boolean } | null;
}

export interface OutputSpec {
  name: string;
  kind: string;
  shape: number[];
  labels?: string[];
  activation?: "softmax" | "sigmoid";
}

/** What is read of a manifest; docs/manifest.schema.json describes all of it. */
export interface Manifest {
  schema_version: number;
  name: string;
  spec: { classes: number | null } | null;
  graph: { classes: number | null } | null;
  preprocess: PreprocessSpec;
  labels: string[];
  activation?: "softmax" | "sigmoid";
  variants: VariantSpec[];
  outputs?: OutputSpec[];
}

/** Reads a manifest; its fields are looked at where they are used. */
export function readManifest(content: Uint8Array): Manifest {
  let found: Manifest;
  try {
    found = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content)) as Manifest;
  } catch (error) {
    throw badPack(`the manifest is not valid: ${String(error)}`);
  }
  if (typeof found !== "object" || found === null || !Number.isInteger(found.schema_version) || found.schema_version < 1)
    throw badPack("the manifest is not valid: it has no schema version");
  if (found.schema_version > NEWEST)
    throw new EdgeViTError(
      `the pack has schema version ${found.schema_version}, and this package knows versions up to ${NEWEST}`,
      "install a newer version of the npm package edgevit",
    );
  if (!Array.isArray(found.variants) || !Array.isArray(found.labels) || typeof found.preprocess !== "object" || !found.preprocess)
    throw badPack("the manifest is not valid: variants, labels or preprocess are missing");
  return found;
}
