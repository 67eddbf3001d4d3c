import type { Prediction } from "../src/web.js";

/** What the page asks its worker. */
export type Request =
  | { kind: "open"; pack: Blob | string; variant?: string }
  | { kind: "variant"; variant: string }
  | { kind: "answer"; image: Blob | ImageBitmap };

/** What was opened. */
export interface Opened {
  name: string;
  variant: string;
  engine: string;
  variants: { name: string; precision: string; validated: boolean }[];
  /** Whether it is there without a connection, too. */
  kept: boolean;
}

/** What the model says of an image; without labels, the names and sizes of its outputs. */
export interface Answered {
  predictions: Prediction[];
  outputs: Record<string, readonly number[]>;
  variant: string;
  milliseconds: { prepare: number; model: number };
}

export interface Refusal {
  message: string;
  remedy: string;
}

/** What the worker says: to a request by its number, or by itself that a newer pack took the place of the kept one. */
export type Reply =
  | { id: number; result: Opened | Answered }
  | { id: number; refusal: Refusal }
  | { id: null; replaced: Opened }
  | { id: null; refusal: Refusal };
