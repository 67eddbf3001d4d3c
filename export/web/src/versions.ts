import { badPack } from "./errors.js";

/** Whether an engine's version is in a range as Python packages write it, such as ">=1.24,<2"; others are not read. */
export function within(version: string, range: string): boolean {
  const found = numbers(version);
  return range.split(",").every((part) => {
    const match = /^\s*(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*$/.exec(part);
    if (match === null) throw badPack(`the manifest is not valid: '${range}' is no range of versions`);
    const order = compared(found, numbers(match[2]));
    return { ">=": order >= 0, "<=": order <= 0, "==": order === 0, "!=": order !== 0, "<": order < 0, ">": order > 0 }[match[1]];
  });
}

function numbers(version: string): number[] {
  return (/^\d+(\.\d+)*/.exec(version)?.[0] ?? "0").split(".").map(Number);
}

function compared(one: number[], other: number[]): number {
  for (let at = 0; at < Math.max(one.length, other.length); at++) {
    const difference = (one[at] ?? 0) - (other[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
