import { badPack, EdgeViTError } from "./errors.js";

const END_BYTES = 22;
const ENTRY_BYTES = 46;
const HEADER_BYTES = 30;
const MOST_ENTRIES = 4096;
const ALIGNMENT = 16 << 10;
const PADDING = 0xd935;
const FIRST_DAY = 0x21;
const VERSION = 20;
const MADE_BY = (3 << 8) | 20;
const ATTRIBUTES = 0o100644 * 65536;

/** Plain names, as the manifest's: nothing that is absolute, hidden or leads out of a folder. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]*(\/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$/;

interface Entry {
  content: Uint8Array<ArrayBuffer>;
  crc: number;
}

/**
 * The files of a pack: a zip archive in which nothing is compressed, see docs/architecture.md. It is read only if each
 * byte between its files is as `edgevit pack` writes it, so that no other reader finds another archive in it.
 */
export class Pack {
  private readonly files = new Map<string, Entry>();

  /** Reads the list of files; what is in one is believed only once it was checked, by `file` or `verified`. */
  constructor(private readonly content: Uint8Array<ArrayBuffer>) {
    const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
    const end = content.byteLength - END_BYTES;
    if (end < 0 || view.getUint32(end, true) !== 0x06054b50) throw badPack("this is no pack, or it is cut short");
    const [count, size, start] = [view.getUint16(end + 10, true), view.getUint32(end + 12, true), view.getUint32(end + 16, true)];
    if (start + size !== end) throw badPack("this is no pack, or it is cut short");
    const disks = view.getUint32(end + 4, true) + view.getUint16(end + 20, true);
    if (count > MOST_ENTRIES || disks !== 0 || view.getUint16(end + 8, true) !== count) throw otherwise("its end");
    let [place, data] = [start, 0];
    for (let entry = 0; entry < count; entry++) {
      if (place + ENTRY_BYTES > end) throw otherwise("its list of files");
      const nameBytes = view.getUint16(place + 28, true);
      if (place + ENTRY_BYTES + nameBytes > end) throw otherwise("its list of files");
      data = this.add(view, place, nameBytes, data, start);
      place += ENTRY_BYTES + nameBytes;
    }
    if (place !== end || data !== start) throw otherwise("its list of files");
  }

  /** Adds the entry that is listed at a place, whose header must begin at `header`; returns where its content ends. */
  private add(view: DataView, place: number, nameBytes: number, header: number, start: number): number {
    const [content, long] = [this.content, (at: number) => view.getUint32(at, true)];
    const short = (at: number) => view.getUint16(at, true);
    const name = ascii(content.subarray(place + ENTRY_BYTES, place + ENTRY_BYTES + nameBytes));
    if (!NAME.test(name)) throw otherwise(`the name ${JSON.stringify(name)}`);
    const [crc, bytes] = [long(place + 16), long(place + 24)];
    const listed =
      long(place) === 0x02014b50 && short(place + 4) === MADE_BY && short(place + 6) === VERSION && plain(view, place + 8) &&
      long(place + 20) === bytes && short(place + 30) === 0 && short(place + 32) === 0 && short(place + 34) === 0 &&
      short(place + 36) === 0 && long(place + 38) === ATTRIBUTES && long(place + 42) === header;
    if (!listed) throw otherwise(`how ${name} is listed`);
    if (header + HEADER_BYTES + nameBytes > start) throw otherwise(name);
    const extra = short(header + 28);
    const data = header + HEADER_BYTES + nameBytes + extra;
    const there =
      long(header) === 0x04034b50 && short(header + 4) === VERSION && plain(view, header + 6) && long(header + 14) === crc &&
      long(header + 18) === bytes && long(header + 22) === bytes && short(header + 26) === nameBytes && data + bytes <= start &&
      ascii(content.subarray(header + HEADER_BYTES, header + HEADER_BYTES + nameBytes)) === name;
    if (!there || !isPadding(view, data - extra, extra, name)) throw otherwise(name);
    if (this.files.has(name)) throw badPack(`${name} is there twice`);
    this.files.set(name, { content: content.subarray(data, data + bytes), crc });
    return data + bytes;
  }

  /** The content of a file that no manifest lists, checked by its CRC-32. */
  file(name: string): Uint8Array<ArrayBuffer> {
    const { content, crc } = this.entry(name);
    if (crc32(content) !== crc) throw badPack(`${name} is damaged: its checksum is not the one in the list of files`);
    return content;
  }

  /** The content of a file, whose SHA-256 was found to be `sha256`. */
  async verified(name: string, sha256: string): Promise<Uint8Array<ArrayBuffer>> {
    const { content } = this.entry(name);
    const subtle = globalThis.crypto?.subtle;
    if (subtle === undefined)
      throw new EdgeViTError("there is no SHA-256 here to check the pack with", "open the page over https, or on localhost; in Node, use 20 or later");
    const digest = new Uint8Array(await subtle.digest("SHA-256", content));
    const found = Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
    if (found !== sha256) throw badPack(`${name} is damaged: its content is not what the manifest says`);
    return content;
  }

  private entry(name: string): Entry {
    const found = this.files.get(name);
    if (found === undefined) throw badPack(`${name} is missing from the pack`);
    return found;
  }
}

function otherwise(what: string): EdgeViTError {
  return badPack(`this is no pack as 'edgevit pack' writes them: ${what} is otherwise`);
}

/** No flags, no compression, and the time that all have. */
function plain(view: DataView, place: number): boolean {
  return view.getUint32(place, true) === 0 && view.getUint16(place + 4, true) === 0 && view.getUint16(place + 6, true) === FIRST_DAY;
}

/** Whether the extra field is what a file of a variant is aligned by; others have none. */
function isPadding(view: DataView, place: number, bytes: number, name: string): boolean {
  if (!name.includes("/") || name.startsWith("golden/")) return bytes === 0;
  const expected = 6 + ((ALIGNMENT - ((place + 6) % ALIGNMENT)) % ALIGNMENT);
  if (bytes !== expected || view.getUint16(place, true) !== PADDING || view.getUint16(place + 2, true) !== bytes - 4) return false;
  if (view.getUint16(place + 4, true) !== ALIGNMENT) return false;
  for (let at = place + 6; at < place + bytes; at++) if (view.getUint8(at) !== 0) return false;
  return true;
}

function ascii(bytes: Uint8Array): string {
  return Array.from(bytes, (each) => String.fromCharCode(each)).join("");
}

function crc32(content: Uint8Array): number {
  const table = Uint32Array.from({ length: 256 }, (_, byte) => {
    let found = byte;
    for (let bit = 0; bit < 8; bit++) found = found & 1 ? (found >>> 1) ^ 0xedb88320 : found >>> 1;
    return found;
  });
  let found = 0xffffffff;
  for (const byte of content) found = (found >>> 8) ^ table[(found ^ byte) & 0xff];
  return (found ^ 0xffffffff) >>> 0;
}
