/** The page: takes photos, files and the camera, and shows what the worker says. */
import { frames } from "./camera.js";
import type { Answered, Opened, Refusal } from "./messages.js";
import { offline } from "./offline.js";
import { Ask, Refused } from "./ask.js";

const DEFAULT = "model.edgevit.zip";

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const photo = element<HTMLImageElement>("photo");
const video = element<HTMLVideoElement>("video");
const camera = element<HTMLButtonElement>("camera");
const variant = element<HTMLSelectElement>("variant");
const ask = new Ask(showReplaced, showRefusal);
let stop: (() => void) | undefined;

function say(text: string): void {
  element("status").textContent = text;
}

function showRefusal(found: Refusal | undefined): void {
  const place = element("error");
  place.hidden = found === undefined;
  place.textContent = found === undefined ? "" : `${found.message}. To mend it: ${found.remedy}.`;
}

/** Runs what a person asked for; what goes wrong is shown, and the last answer is not left beside it. */
async function attempt(work: () => Promise<void>): Promise<void> {
  showRefusal(undefined);
  try {
    await work();
  } catch (error) {
    element("labels").replaceChildren();
    const refusal = error instanceof Refused ? error.refusal : { message: String(error), remedy: "reload the page" };
    showRefusal(refusal);
    say("");
  }
}

function showOpened(opened: Opened): void {
  element("name").textContent = opened.name;
  element("loaded").textContent = opened.variant;
  element("engine").textContent = opened.engine;
  variant.replaceChildren(
    ...opened.variants.map(({ name, validated }) => new Option(validated ? name : `${name} (not validated)`, name, false, name === opened.variant)),
  );
  variant.disabled = false;
  camera.disabled = navigator.mediaDevices === undefined;
  document.body.dataset.kept = String(opened.kept);
  say(opened.kept ? "The pack is kept for when there is no connection." : "Ready.");
}

function showReplaced(opened: Opened): void {
  showOpened(opened);
  say("A newer pack was there, and has taken the place of the one before.");
}

function show(answered: Answered): void {
  const rows = answered.predictions.map(({ label, probability }) => {
    const row = document.createElement("li");
    const share = document.createElement("span");
    share.textContent = `${(100 * probability).toFixed(1)} %`;
    const name = document.createElement("span");
    name.textContent = label;
    const bar = document.createElement("progress");
    bar.value = probability;
    row.append(share, name, bar);
    return row;
  });
  if (rows.length === 0)
    for (const [name, shape] of Object.entries(answered.outputs)) {
      const row = document.createElement("li");
      row.append("", `${name}: ${shape.join(" x ") || "one row of"} numbers`);
      rows.push(row);
    }
  element("labels").replaceChildren(...rows);
  element("loaded").textContent = answered.variant;
  element("prepare").textContent = `${answered.milliseconds.prepare.toFixed(1)} ms`;
  element("model").textContent = `${answered.milliseconds.model.toFixed(1)} ms`;
  document.body.dataset.answers = String(Number(document.body.dataset.answers ?? 0) + 1);
}

function open(pack: Blob | string, named?: string): Promise<void> {
  return attempt(async () => {
    say("Loading the pack …");
    showOpened(await ask.open(pack, named));
  });
}

function look(file: Blob): Promise<void> {
  closeCamera();
  return attempt(async () => {
    URL.revokeObjectURL(photo.src);
    photo.src = URL.createObjectURL(file);
    photo.hidden = false;
    element("hint").hidden = true;
    show(await ask.answer(file));
    say("");
  });
}

function closeCamera(): void {
  stop?.();
  stop = undefined;
  video.hidden = true;
  camera.setAttribute("aria-pressed", "false");
  camera.textContent = "Open the camera";
}

function openCamera(): Promise<void> {
  camera.disabled = true; // it is opened once, however often that is asked for meanwhile
  return attempt(async () => {
    const running = await frames(video, async (frame) => {
      const answered = await ask.answer(frame);
      if (stop === running) show(answered);
    }, (error) => {
      closeCamera();
      void attempt(() => Promise.reject(error));
    });
    stop = running;
    photo.hidden = true;
    element("hint").hidden = true;
    video.hidden = false;
    camera.setAttribute("aria-pressed", "true");
    camera.textContent = "Close the camera";
  }).finally(() => (camera.disabled = false));
}

function listen(): void {
  const place = element("drop");
  for (const kind of ["dragover", "dragleave", "drop"] as const)
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // a photo dropped beside the frame is not to replace the page
      place.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" ? event.dataTransfer?.files[0] : undefined;
      if (file !== undefined) void (file.name.endsWith(".zip") ? open(file) : look(file));
    });
  const chosen = (id: string, use: (file: File) => Promise<void>) =>
    element<HTMLInputElement>(id).addEventListener("change", ({ target }) => {
      const input = target as HTMLInputElement;
      const [file] = input.files ?? [];
      if (file !== undefined) void use(file).then(() => (input.value = "")); // the same may be chosen again
    });
  chosen("file", look);
  chosen("pack", (file) => open(file));
  variant.addEventListener("change", () => void attempt(async () => showOpened(await ask.variant(variant.value))));
  camera.addEventListener("click", () => (stop === undefined ? void openCamera() : closeCamera()));
}

/** The pack that the address names, from this page's own server: a link must not bring a model of a stranger's here. */
async function openNamed(): Promise<void> {
  const query = new URLSearchParams(location.search);
  const named = query.get("pack") ?? DEFAULT;
  const address = URL.canParse(named, location.href) ? new URL(named, location.href) : undefined;
  if (address?.origin === location.origin) return open(address.href, query.get("variant") ?? undefined);
  const where = address === undefined ? `'${named}' is no address` : `the pack is on ${address.origin}, another server`;
  await attempt(() => Promise.reject(new Refused({ message: where, remedy: "put it beside this page, or choose its file" })));
}

listen();
offline(element<HTMLButtonElement>("update"));
await openNamed();
