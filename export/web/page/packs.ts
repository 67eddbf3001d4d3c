/** Packs that were opened by their address, kept for when there is no connection. */
import { fetched } from "../src/web.js";

const CACHE = "edgevit-packs";
const HASH = "x-edgevit-sha256";

export interface Kept {
  content: Uint8Array<ArrayBuffer>;
  sha256: string;
}

/** The pack that was kept for an address. */
export async function kept(address: string): Promise<Kept | undefined> {
  const found = await (await store())?.match(address);
  const sha256 = found?.headers.get(HASH);
  return found && sha256 ? { content: new Uint8Array(await found.arrayBuffer()), sha256 } : undefined;
}

/** The pack that is at an address now. */
export async function current(address: string): Promise<Kept> {
  const content = await fetched(address, { cache: "no-cache" });
  return { content, sha256: await sha256Of(content) };
}

/** Keeps a pack in the place of the one that was kept before; a put happens whole or not at all. */
export async function keep(address: string, { content, sha256 }: Kept): Promise<boolean> {
  try {
    const cache = await store();
    await cache?.put(address, new Response(content, { headers: { "content-type": "application/zip", [HASH]: sha256 } }));
    return cache !== undefined;
  } catch {
    return false; // there is no room; it runs all the same
  }
}

/** Browsers keep nothing for pages that came unprotected, nor in some private windows. */
async function store(): Promise<Cache | undefined> {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined;
  }
}

async function sha256Of(content: Uint8Array<ArrayBuffer>): Promise<string> {
  if (globalThis.crypto?.subtle === undefined) return ""; // opening it says so
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
}
