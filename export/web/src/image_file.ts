import { EdgeViTError } from "./errors.js";

const MOST_BYTES = 64 << 20;
export const MOST_PIXELS = 80_000_000;

/** What a file says of itself at its beginning; sizes are 0 where that is further behind. */
interface Head {
  format: string;
  width: number;
  height: number;
  bits: number;
}

/**
 * Refuses a file that a browser would read otherwise than EdgeViT's Python, or that would fill the memory: browsers
 * also draw what Python does not read, and reduce 16 bits to 8 otherwise.
 */
export function checkImageFile(content: Uint8Array): void {
  const head = headOf(content);
  if (head === undefined) throw refused("it is no JPEG, PNG, WebP, BMP or GIF", "save it as one of these");
  if (head.width * head.height > MOST_PIXELS) throw tooLarge();
  if (head.bits > 8) throw refused(`it has ${head.bits} bits a channel`, "save it with 8 bits a channel");
}

/** Refuses a file that is larger than those that are read, before it is. */
export function checkSize(bytes: number): void {
  if (bytes > MOST_BYTES) throw refused("it has more than 64 MiB", "save it smaller, for example as a JPEG");
}

/** The error of an image that has more pixels than are read. */
export function tooLarge(): EdgeViTError {
  return refused(`it has more than ${MOST_PIXELS / 1e6} million pixels`, "save it smaller");
}

/** The error of an image that is not taken. */
export function refused(problem: string, remedy: string): EdgeViTError {
  return new EdgeViTError(`the image cannot be used: ${problem}`, remedy);
}

function headOf(content: Uint8Array): Head | undefined {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const text = (from: number, to: number) => String.fromCharCode(...content.subarray(from, to));
  if (text(0, 8) === "\x89PNG\r\n\x1a\n" && content.length >= 26)
    return { format: "PNG", width: view.getUint32(16), height: view.getUint32(20), bits: content[24] };
  if (text(0, 2) === "\xff\xd8") return ofJpeg(content, view);
  if (text(0, 3) === "GIF" && content.length >= 10)
    return { format: "GIF", width: view.getUint16(6, true), height: view.getUint16(8, true), bits: 8 };
  if (text(0, 2) === "BM" && content.length >= 26)
    return { format: "BMP", width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)), bits: 8 };
  if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP" && content.length >= 30) return { format: "WEBP", ...ofWebp(text(12, 16), view), bits: 8 };
  return undefined;
}

function ofJpeg(content: Uint8Array, view: DataView): Head {
  const found = { format: "JPEG", width: 0, height: 0, bits: 8 };
  for (let place = 2; place + 9 < content.length && content[place] === 0xff; ) {
    const marker = content[place + 1];
    if (marker === 0xff) {
      place++; // filled up
      continue;
    }
    const frame = marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
    if (frame)
      return { ...found, bits: content[place + 4], height: view.getUint16(place + 5), width: view.getUint16(place + 7) };
    place += 2 + view.getUint16(place + 2);
  }
  return found; // the decoder says what is wrong
}

function ofWebp(kind: string, view: DataView): { width: number; height: number } {
  if (kind === "VP8X") {
    const three = (at: number) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16) + 1;
    return { width: three(24), height: three(27) };
  }
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
  }
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}
