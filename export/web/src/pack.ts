import { badPack } from "./errors.js";

const END_BYTES = 22;
const ENTRY_BYTES = 46;
const HEADER_BYTES = 30;

/** The files of a pack: a zip archive in which nothing is compressed, see docs/architecture.md. */
export class Pack {
  private readonly files = new Map<string, Uint8Array<ArrayBuffer>>();

  /** Reads the list of files; what is in one is believed only once its SHA-256 was checked, by `verified`. */
  constructor(content: Uint8Array<ArrayBuffer>) {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const end = content.byteLength - END_BYTES;
    if (end < 0 || view.getUint32(end, true) !== 0x06054b50) throw badPack("this is no pack, or it is cut short");
    const count = view.getUint16(end + 10, true);
    const start = view.getUint32(end + 16, true);
    if (start + view.getUint32(end + 12, true) !== end) throw badPack("this is no pack, or it is cut short");
    let place = start;
    for (let entry = 0; entry < count; entry++) {
      if (place + ENTRY_BYTES > end || view.getUint32(place, true) !== 0x02014b50) throw badPack("the list of files is damaged");
      const nameBytes = view.getUint16(place + 28, true);
      const bytes = view.getUint32(place + 24, true);
      const further = view.getUint16(place + 30, true) + view.getUint16(place + 32, true);
      // No flags, no compression: what is packed is as large as it was.
      if (view.getUint32(place + 8, true) !== 0 || view.getUint32(place + 20, true) !== bytes || further !== 0)
        throw badPack("this is no pack as 'edgevit pack' writes them");
      if (place + ENTRY_BYTES + nameBytes > end) throw badPack("the list of files is damaged");
      const name = ascii(content.subarray(place + ENTRY_BYTES, place + ENTRY_BYTES + nameBytes));
      this.add(name, content, view, view.getUint32(place + 42, true), bytes, start);
      place += ENTRY_BYTES + nameBytes;
    }
    if (place !== end) throw badPack("the list of files is damaged");
  }

  private add(name: string, content: Uint8Array<ArrayBuffer>, view: DataView, header: number, bytes: number, start: number): void {
    if (header + HEADER_BYTES > start || view.getUint32(header, true) !== 0x04034b50) throw badPack(`${name} is damaged`);
    const nameBytes = view.getUint16(header + 26, true);
    const data = header + HEADER_BYTES + nameBytes + view.getUint16(header + 28, true);
    const same = ascii(content.subarray(header + HEADER_BYTES, header + HEADER_BYTES + nameBytes)) === name;
    if (!same || data + bytes > start) throw badPack(`${name} is damaged`);
    if (this.files.has(name)) throw badPack(`${name} is there twice`);
    this.files.set(name, content.subarray(data, data + bytes));
  }

  /** The content of a file, unchecked. */
  file(name: string): Uint8Array<ArrayBuffer> {
    const found = this.files.get(name);
    if (found === undefined) throw badPack(`${name} is missing from the pack`);
    return found;
  }

  /** The content of a file, whose SHA-256 was found to be `sha256`. */
  async verified(name: string, sha256: string): Promise<Uint8Array<ArrayBuffer>> {
    const content = this.file(name);
    const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", content));
    const found = Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
    if (found !== sha256) throw badPack(`${name} is damaged: its content is not what the manifest says`);
    return content;
  }
}

function ascii(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
