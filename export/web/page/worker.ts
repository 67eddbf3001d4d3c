/** Opens packs and runs models beside the page, which stays quick. One request is answered after the other. */
import { EdgeViTError, infoOf, load, type Model, type Pixels, pixelsOf, read } from "../src/web.js";
import type { Answered, Opened, Refusal, Reply, Request } from "./messages.js";
import { current, keep, type Kept, kept } from "./packs.js";

interface Loaded {
  model: Model;
  content: Uint8Array<ArrayBuffer>;
  opened: Opened;
}

const TOP = 5;
let loaded: Loaded | undefined;
let turn: Promise<void> = Promise.resolve();
let openings = 0;
/** What the person asked for, which a newer pack is to go on with. */
let wanted: string | undefined;

onmessage = ({ data }: MessageEvent<{ id: number; request: Request }>) => inTurn(data.id, () => answered(data.request));

function inTurn(id: number, work: () => Promise<Opened | Answered>): void {
  turn = turn.then(async () => {
    try {
      say({ id, result: await work() });
    } catch (error) {
      say({ id, refusal: refusalOf(error) });
    }
  });
}

function say(reply: Reply): void {
  postMessage(reply);
}

function refusalOf(error: unknown): Refusal {
  if (error instanceof EdgeViTError) return { message: error.problem, remedy: error.remedy };
  const message = error instanceof Error ? error.message : String(error);
  return { message: `unexpected: ${message}`, remedy: "reload the page, and say what you did in an issue" };
}

async function answered(request: Request): Promise<Opened | Answered> {
  if (request.kind === "answer") return answer(request.image);
  if (request.kind === "variant") {
    if (loaded === undefined) throw new EdgeViTError("no pack is open", "choose a pack");
    const opened = await use(loaded.content, loaded.opened.kept, request.variant);
    wanted = request.variant;
    return opened;
  }
  openings++;
  wanted = request.variant;
  if (request.pack instanceof Blob) return use(await read(request.pack), false, request.variant);
  return openAddress(request.pack, request.variant);
}

/** Runs the pack that was kept at once, and looks for a newer one meanwhile; without one, the one that is there now. */
async function openAddress(address: string, variant: string | undefined): Promise<Opened> {
  const before = await kept(address);
  let refusal: unknown;
  if (before !== undefined) {
    try {
      const opened = await use(before.content, true, variant);
      void renew(address, before.sha256, openings);
      return opened;
    } catch (error) {
      refusal = error; // the one that is there now may be better
    }
  }
  let found: Kept;
  try {
    found = await current(address);
  } catch (error) {
    throw refusal ?? error;
  }
  const opened = await use(found.content, false, variant);
  opened.kept = await keep(address, found);
  return opened;
}

/** Replaces the pack that was kept if another is at its address now, once that one was opened. */
async function renew(address: string, sha256: string, opening: number): Promise<void> {
  let found: Kept;
  try {
    found = await current(address);
  } catch {
    return; // there is no connection: what was kept goes on
  }
  if (found.sha256 === sha256) return;
  turn = turn.then(async () => {
    if (opening !== openings) return; // the person chose another meanwhile
    try {
      const has = infoOf(found.content).variants.some(({ name }) => name === wanted);
      const replaced = await use(found.content, false, has ? wanted : undefined);
      replaced.kept = await keep(address, found);
      say({ id: null, replaced });
    } catch (error) {
      const { message, remedy } = refusalOf(error);
      say({ id: null, refusal: { message: `the new pack is refused, and the one before goes on: ${message}`, remedy } });
    }
  });
}

/** Opens a pack; the one before is closed once that worked. */
async function use(content: Uint8Array<ArrayBuffer>, isKept: boolean, variant: string | undefined): Promise<Opened> {
  const { name, variants } = infoOf(content);
  const model = await load(content, { variant });
  const before = loaded;
  const opened = { name, variants, variant: model.variant, engine: model.engineName, kept: isKept };
  loaded = { model, content, opened };
  await before?.model.close();
  return opened;
}

async function answer(image: Blob | ImageBitmap): Promise<Answered> {
  let pixels: Pixels;
  try {
    pixels = await pixelsOf(image);
  } finally {
    if (image instanceof ImageBitmap) image.close(); // frames of a camera are many
  }
  if (loaded === undefined) throw new EdgeViTError("no pack is open", "choose a pack");
  const { model } = loaded;
  const start = performance.now();
  const input = model.prepare(pixels);
  const prepared = performance.now();
  const outputs = await model.infer(input);
  const done = performance.now();
  return {
    predictions: model.labels.length > 0 ? model.decide(outputs, { top: TOP }) : [],
    outputs: model.shapes,
    variant: model.variant,
    milliseconds: { prepare: prepared - start, model: done - prepared },
  };
}
