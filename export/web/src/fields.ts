import { badPack } from "./errors.js";

/** A field of JSON and where it stands, which messages name; whoever wrote it may be hostile. */
export class Field {
  constructor(
    private readonly value: unknown,
    private readonly where: string,
  ) {}

  private bad(expected: string): never {
    throw badPack(`the manifest is not valid: ${this.where} is not ${expected}`);
  }

  /** A field of an object; only its own, whatever it is called. */
  get(name: string): Field {
    if (typeof this.value !== "object" || this.value === null || Array.isArray(this.value)) this.bad("an object");
    const found = Object.hasOwn(this.value, name) ? (this.value as Record<string, unknown>)[name] : undefined;
    return new Field(found, `${this.where}.${name}`);
  }

  /** What `read` makes of it; null where it is null or absent. */
  optional<T>(read: (field: Field) => T): T | null {
    return this.value === null || this.value === undefined ? null : read(this);
  }

  list<T>(read: (field: Field) => T, most = 1 << 20): T[] {
    if (!Array.isArray(this.value) || this.value.length > most) this.bad(`a list of at most ${most}`);
    return this.value.map((each, at) => read(new Field(each, `${this.where}[${at}]`)));
  }

  text(most = 1 << 16): string {
    if (typeof this.value !== "string" || this.value.length > most) this.bad("a text");
    return this.value;
  }

  matching(pattern: RegExp): string {
    const found = this.text();
    return pattern.test(found) ? found : this.bad(`of the form ${pattern.source}`);
  }

  oneOf<T extends string>(known: readonly T[]): T {
    return known.find((each) => each === this.value) ?? this.bad(`one of ${known.join(", ")}`);
  }

  whole(least: number, most: number): number {
    const found = this.value;
    return Number.isInteger(found) && (found as number) >= least && (found as number) <= most
      ? (found as number)
      : this.bad(`a whole number from ${least} to ${most}`);
  }

  number(): number {
    return typeof this.value === "number" && Number.isFinite(this.value) ? this.value : this.bad("a finite number");
  }

  boolean(): boolean {
    return typeof this.value === "boolean" ? this.value : this.bad("true or false");
  }

  pair(least: number, most: number): [number, number] {
    const found = this.list((each) => each.whole(least, most));
    return found.length === 2 ? [found[0], found[1]] : this.bad("a pair");
  }
}
