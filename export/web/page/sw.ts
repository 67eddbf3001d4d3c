/**
 * Serves the page from what was kept. A version is kept as a whole: each file must have the SHA-256 that it had when
 * the page was built, or the version before goes on. A new one waits until no page of the one before is open, or until
 * the person asks for it. Packs are not its concern: see packs.ts.
 */
declare const self: ServiceWorkerGlobalScope;
// Written by tools/page.mjs: a hash of all files, and each file with its own.
declare const VERSION: string;
declare const FILES: Record<string, string>;

const PREFIX = `edgevit-page ${self.registration.scope} `; // other pages of this server keep theirs
const CACHE = PREFIX + VERSION;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      try {
        await cache.addAll(Object.entries(FILES).map(([path, integrity]) => new Request(path, { integrity, cache: "no-cache" })));
      } catch (error) {
        await caches.delete(CACHE);
        throw error;
      }
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("message", ({ data }) => {
  if (data === "take over") void self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  const rest = url.pathname.slice(new URL(self.registration.scope).pathname.length);
  const path = rest === "" || rest === "index.html" ? "./" : rest;
  if (!Object.hasOwn(FILES, path)) return;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      return (await cache.match(new URL(path, self.registration.scope))) ?? fetch(request);
    })(),
  );
});

export {};
