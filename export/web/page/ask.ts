import type { Answered, Opened, Refusal, Reply, Request } from "./messages.js";

/** What the worker refused. */
export class Refused extends Error {
  constructor(readonly refusal: Refusal) {
    super(refusal.message);
  }
}

interface Waiting {
  done(result: Opened | Answered): void;
  failed(error: Error): void;
}

/** The page's side of the worker. */
export class Ask {
  private readonly worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private number = 0;

  constructor(replaced: (opened: Opened) => void, refused: (refusal: Refusal) => void) {
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if (data.id === null) {
        if ("replaced" in data) replaced(data.replaced);
        else refused(data.refusal);
        return;
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ("result" in data) waiting?.done(data.result);
      else waiting?.failed(new Refused(data.refusal));
    };
    this.worker.onerror = ({ message }) => {
      const refusal = { message: `the engine stopped: ${message || "its files cannot be loaded"}`, remedy: "reload the page" };
      for (const { failed } of this.waiting.values()) failed(new Refused(refusal));
      this.waiting.clear();
    };
  }

  open(pack: Blob | string, variant?: string): Promise<Opened> {
    return this.send({ kind: "open", pack, variant }) as Promise<Opened>;
  }

  variant(variant: string): Promise<Opened> {
    return this.send({ kind: "variant", variant }) as Promise<Opened>;
  }

  answer(image: Blob | ImageBitmap): Promise<Answered> {
    return this.send({ kind: "answer", image }, image instanceof ImageBitmap ? [image] : []) as Promise<Answered>;
  }

  private send(request: Request, transferred: Transferable[] = []): Promise<Opened | Answered> {
    const id = ++this.number;
    return new Promise((done, failed) => {
      this.waiting.set(id, { done, failed });
      this.worker.postMessage({ id, request }, transferred);
    });
  }
}
