/** What an application, a pack or an engine can cause; `remedy` says what to do. */
export class EdgeViTError extends Error {
  constructor(
    /** What is wrong; `message` says the remedy, too. */
    readonly problem: string,
    readonly remedy: string,
  ) {
    super(`${problem} (${remedy})`);
    this.name = "EdgeViTError";
  }
}

/** The error of a pack that is damaged, or none. */
export function badPack(message: string): EdgeViTError {
  return new EdgeViTError(message, "get the pack again from where it came, or make it again with 'edgevit pack'");
}
