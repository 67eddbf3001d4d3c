// Answers to lines of JSON on stdin with lines of JSON on stdout, as the tests ask: {pack, variant, image}, or
// {preprocess, image}; an image has its data in base64. With `time`, outputs and the seconds that they took; with `fresh`,
// the file is another than before.
import { createInterface } from "node:readline";

import { load } from "../dist/node.js";
import { Field } from "../dist/fields.js";
import { preprocessOf } from "../dist/manifest.js";
import { Preprocess } from "../dist/preprocess.js";

const models = new Map();

async function answer({ pack, variant, preprocess, image, top, time, fresh }) {
  const pixels = { ...image, data: new Uint8Array(Buffer.from(image.data, "base64")) };
  if (preprocess) return { input: Array.from(new Preprocess(preprocessOf(new Field(preprocess, "$"))).prepare(pixels)) };
  const key = JSON.stringify([pack, variant]);
  if (fresh) models.delete(key);
  if (!models.has(key)) models.set(key, await load(pack, { variant, session: { intraOpNumThreads: 1 } }));
  const model = models.get(key);
  const start = performance.now();
  const outputs = await model.run(pixels);
  const seconds = (performance.now() - start) / 1000;
  const plain = Object.fromEntries(Object.entries(outputs).map(([name, each]) => [name, Array.from(each)]));
  if (time) return { seconds, outputs: plain };
  const several = await Promise.all([1, 2, 3].map(() => model.run(pixels)));
  const found = {
    variant: model.variant,
    labels: model.labels,
    shapes: model.shapes,
    same: several.every((each) => JSON.stringify(each) === JSON.stringify(outputs)),
    outputs: plain,
  };
  return model.labels.length ? { ...found, best: await model.predict(pixels, { top }) } : found;
}

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = await answer(JSON.parse(line));
  } catch (error) {
    said = { error: error.message, type: error.name };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
for (const model of models.values()) await model.close();
