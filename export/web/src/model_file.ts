import { badPack, type EdgeViTError } from "./errors.js";

const DEEPEST = 16; // graphs in graphs
const CONTROL_FLOW = new Set(["If", "Loop", "Scan", "SequenceMap"]);
const NO_FILE = "the model is no readable ONNX file";

/**
 * Refuses an ONNX file that would have the engine open another file, or that may never end: it comes from anywhere.
 * Numbers of fields are those of onnx.proto, the wire format is protobuf's.
 */
export function checkModelFile(content: Uint8Array): void {
  for (const [number, value] of fields(content)) {
    if (number === 7) graph(value, 0);
    else if (number === 25) for (const [field, node] of fields(value)) if (field === 7) checkNode(node, 0);
  }
}

function graph(message: Uint8Array, depth: number): void {
  if (depth > DEEPEST) throw badPack(`${NO_FILE}: its graphs are nested too deep`);
  for (const [number, value] of fields(message)) {
    if (number === 1) checkNode(value, depth);
    else if (number === 5) tensor(value);
    else if (number === 15) sparse(value);
  }
}

function checkNode(message: Uint8Array, depth: number): void {
  for (const [number, value] of fields(message)) {
    if (number === 4) {
      const kind = text(value);
      if (CONTROL_FLOW.has(kind)) throw badPack(`the model has branches or loops: ${kind}`);
    } else if (number === 5) attribute(value, depth);
  }
}

function attribute(message: Uint8Array, depth: number): void {
  for (const [number, value] of fields(message)) {
    if (number === 5 || number === 10) tensor(value);
    else if (number === 6 || number === 11) graph(value, depth + 1);
    else if (number === 22 || number === 23) sparse(value);
  }
}

function sparse(message: Uint8Array): void {
  for (const [number, value] of fields(message)) if (number === 1 || number === 2) tensor(value);
}

function tensor(message: Uint8Array): void {
  for (const [number, value] of fields(message))
    if (number === 13) {
      const entry = new Map(Array.from(fields(value), ([field, word]) => [field, text(word)]));
      if (entry.get(1) === "location") throw badPack(`the model keeps weights in another file, ${JSON.stringify(entry.get(2) ?? "")}`);
    }
}

function text(value: Uint8Array): string {
  return new TextDecoder().decode(value);
}

/** Number and content of each field that has a length; the others are passed over. */
function* fields(message: Uint8Array): Generator<[number, Uint8Array]> {
  let place = 0;
  const cut = (): EdgeViTError => badPack(`${NO_FILE}: it is cut short`);
  const varint = (): number => {
    let [found, scale] = [0, 1];
    for (let bytes = 0; bytes < 10; bytes++) {
      if (place >= message.length) throw cut();
      const byte = message[place++];
      found += (byte & 0x7f) * scale; // beyond 2^53 it is not exact, and far too large anyway
      if (byte < 0x80) return found;
      scale *= 128;
    }
    throw badPack(`${NO_FILE}: it has a number of more than 64 bits`);
  };
  while (place < message.length) {
    const tag = varint();
    if (tag > 0xffffffff) throw badPack(`${NO_FILE}: the number of a field is too large`); // protobuf drops what is above
    const kind = tag % 8;
    if (kind === 2) {
      const size = varint();
      if (size > message.length - place) throw cut();
      yield [Math.floor(tag / 8), message.subarray(place, place + size)];
      place += size;
    } else if (kind === 0) varint();
    else if (kind === 1 || kind === 5) {
      place += kind === 1 ? 8 : 4;
      if (place > message.length) throw cut();
    } else throw badPack(`${NO_FILE}: there is no field of kind ${kind}`);
  }
}
