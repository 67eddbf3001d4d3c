import { badPack, EdgeViTError } from "./errors.js";
import type { PreprocessSpec } from "./manifest.js";

/** Pixels of 8 bits a channel, rows from the top; a browser's ImageData is one. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  /** How channels lie side by side; "rgba" without it. The fourth is not looked at. */
  format?: "rgba" | "bgra" | "rgb" | "bgr" | "grey";
  /** Bytes from one row to the next; without it there is no gap. */
  stride?: number;
}

interface Plane {
  height: number;
  width: number;
  data: Uint8Array;
}

type Size = [height: number, width: number];

const BITS = 22; // of the fraction of a filter's weights
const MOST_PIXELS = 80_000_000;

/** From pixels to a model's input, as EdgeViT's Python does it with Pillow 13: the same filters and roundings. */
export class Preprocess {
  readonly channels: number;
  readonly height: number;
  readonly width: number;

  constructor(private readonly spec: PreprocessSpec) {
    this.channels = spec.channel_order === "L" ? 1 : 3;
    [this.height, this.width] = spec.size;
    if (contradicts(spec, this.channels)) throw badPack("the manifest contradicts itself about how images are prepared");
  }

  /** The input (channels, height, width). */
  prepare(image: Pixels): Float32Array {
    const { mean, std, channel_order } = this.spec;
    const seen = this.geometry(taken(image, this.channels));
    const pixels = this.height * this.width;
    const input = new Float32Array(this.channels * pixels);
    for (let channel = 0; channel < this.channels; channel++) {
      const scale = Math.fround(1 / (255 * std[channel]));
      const shift = Math.fround(mean[channel] / std[channel]);
      const source = channel_order === "BGR" ? 2 - channel : channel;
      for (let at = 0; at < pixels; at++)
        input[channel * pixels + at] = Math.fround(seen.data[at * this.channels + source] * scale) - shift;
    }
    return input;
  }

  private geometry(image: Plane): Plane {
    const { fit, resize, pad, interpolation, crop } = this.spec;
    const size: Size = [this.height, this.width];
    let found = image;
    if (pad === "square") {
      const edge = Math.max(image.height, image.width);
      if (edge * edge > MOST_PIXELS) throw bad("an image is too narrow to be padded to a square");
      found = this.onCanvas(image, [edge, edge], (edge - image.width) >> 1, (edge - image.height) >> 1, true);
    }
    if (fit === "short" && !resize) return resized(found, this.channels, size, interpolation);
    found = this.resized(found);
    if (pad !== "after") return this.cut(found, size, pad === "around");
    if (crop) found = this.cut(found, crop, false);
    if (found.height > this.height || found.width > this.width)
      throw bad(`an image becomes ${found.height}x${found.width} pixels, more than the model's images are padded to`);
    return this.onCanvas(found, size, 0, 0, true);
  }

  private resized(image: Plane): Plane {
    if (this.spec.fit === "none") return image;
    const to = this.edges(image.height, image.width);
    if (to[0] < 1 || to[1] < 1 || to[0] * to[1] > MOST_PIXELS)
      throw bad(`an image of ${image.width}x${image.height} pixels is too narrow to be resized`);
    return resized(image, this.channels, to, this.spec.interpolation);
  }

  private edges(high: number, wide: number): Size {
    const { fit, box, longest, rounding } = this.spec;
    const short = Math.min(high, wide);
    const long = Math.max(high, wide);
    let edge = box && fit === "cover" && box[0] === box[1] ? box[0] : (this.spec.resize ?? 0);
    if (edge && longest) {
      let exact = edge;
      if ((long / short) * edge > longest) {
        exact = (longest * short) / long;
        edge = whole(exact);
      }
      if (short === edge) return [high, wide];
      const far = Math.trunc((exact * long) / short);
      return high <= wide ? [edge, far] : [far, edge];
    }
    if (edge) {
      const along = (side: number): number => (side === short ? edge : Math.trunc((edge * side) / short));
      return [along(high), along(wide)];
    }
    const [down, across] = box as Size;
    if (fit === "squash") return [down, across];
    if (rounding && rounding !== "nearest") {
      const ratios = [down / high, across / wide];
      const scale = fit === "contain" ? Math.min(...ratios) : Math.max(...ratios);
      const half = rounding === "half up" ? 0.5 : 0;
      return [Math.trunc(high * scale + half), Math.trunc(wide * scale + half)];
    }
    const shares = [high / down, wide / across];
    const share = fit === "contain" ? Math.max(...shares) : Math.min(...shares);
    return [whole(high / share), whole(wide / share)];
  }

  private cut(image: Plane, size: Size, filled: boolean): Plane {
    return this.onCanvas(image, size, -this.offset(image.width, size[1]), -this.offset(image.height, size[0]), filled);
  }

  /** An image of `size` with this one at a place, which may be outside; the rest is filled, or black. */
  private onCanvas(image: Plane, [height, width]: Size, left: number, top: number, filled: boolean): Plane {
    const channels = this.channels;
    const data = new Uint8Array(height * width * channels);
    const fill = filled ? this.spec.fill : null;
    if (fill) for (let at = 0; at < data.length; at++) data[at] = fill[at % channels];
    const first = Math.max(0, left);
    const last = Math.min(width, left + image.width);
    for (let y = Math.max(0, top); y < Math.min(height, top + image.height) && first < last; y++) {
      const from = ((y - top) * image.width + first - left) * channels;
      data.set(image.data.subarray(from, from + (last - first) * channels), (y * width + first) * channels);
    }
    return { height, width, data };
  }

  private offset(given: number, wanted: number): number {
    if (this.spec.rounding && this.spec.rounding !== "nearest") return Math.floor((given - wanted) / 2);
    return given >= wanted ? whole((given - wanted) / 2) : -((wanted - given) >> 1);
  }
}

/** What EdgeViT's Python refuses, too. */
function contradicts(spec: PreprocessSpec, channels: number): boolean {
  const { size, mean, std, box, fill, fit, resize, longest, crop, pad } = spec;
  const boxed = fit === "squash" || fit === "cover" || fit === "contain";
  const inner = crop ?? (fit === "squash" ? box : null) ?? [1, 1];
  return (
    mean.length !== channels ||
    std.length !== channels ||
    std.some((each) => !(each > 0)) ||
    (fill !== null && fill.length !== channels) ||
    boxed !== (box !== null) ||
    (resize !== null && (fit !== "short" || resize < Math.max(...size))) ||
    (longest !== null && !(fit === "cover" && box !== null && box[0] === box[1])) ||
    (pad !== "after" && crop !== null) ||
    (pad === "after" && (fit === "short" || inner[0] > size[0] || inner[1] > size[1]))
  );
}

function bad(message: string): EdgeViTError {
  return new EdgeViTError(message, "give another image");
}

/** Half to even, as Python's round. */
function whole(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

const ORDERS = { rgba: [0, 1, 2, 4], bgra: [2, 1, 0, 4], rgb: [0, 1, 2, 3], bgr: [2, 1, 0, 3], grey: [0, 0, 0, 1] } as const;

/** The image as grey, or as R, G, B. Grey of colours is Pillow's. */
function taken(image: Pixels, wanted: number): Plane {
  if (typeof image !== "object" || image === null)
    throw new EdgeViTError(`${String(image)} is no image`, "give { data, width, height, format }, as a browser's ImageData is");
  const { width, height } = image;
  const format = image.format ?? "rgba";
  if (!Object.hasOwn(ORDERS, format))
    throw new EdgeViTError(`there is no format ${String(image.format)}`, `give one of ${Object.keys(ORDERS).join(", ")}`);
  const order = ORDERS[format];
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1 || width * height > MOST_PIXELS)
    throw bad(`an image has ${width}x${height} pixels`);
  const [red, green, blue, channels] = order;
  const stride = image.stride ?? width * channels;
  if (!(image.data instanceof Uint8Array || image.data instanceof Uint8ClampedArray) || !Number.isInteger(stride))
    throw new EdgeViTError("the image's data are no bytes", "give a Uint8Array or a Uint8ClampedArray");
  const needed = (height - 1) * stride + width * channels;
  if (stride < width * channels || image.data.length < needed)
    throw new EdgeViTError(
      `an image of ${width}x${height} pixels with ${channels} channels and a stride of ${stride} takes ${needed} bytes, ` +
        `and there are ${image.data.length}`,
      "give the format and the stride that the pixels have",
    );
  const data = new Uint8Array(width * height * wanted);
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0, from = y * stride; x < width; x++, from += channels, to += wanted) {
      const [r, g, b] = [image.data[from + red], image.data[from + green], image.data[from + blue]];
      if (wanted === 1) {
        data[to] = channels === 1 ? r : (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
      } else {
        data[to] = r;
        data[to + 1] = g;
        data[to + 2] = b;
      }
    }
  return { height, width, data };
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

/** Pillow's filters: how far they reach, and their weights. */
const FILTERS: Record<string, [support: number, weight: (x: number) => number]> = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI)))],
  bicubic: [
    2,
    (given) => {
      const x = Math.abs(given);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1; // Keys' cubic convolution, a = -0.5
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  ],
  lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** For each place along an axis, which pixels it is made of, and with which weights, as fractions of 2^22. */
function weightsOf(from: number, to: number, filter: string): { first: Int32Array; values: Int32Array[] } {
  const [reach, weight] = FILTERS[filter];
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const support = reach * wide;
  const narrow = 1 / wide;
  const first = new Int32Array(to);
  const values: Int32Array[] = [];
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale;
    first[place] = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(from, Math.trunc(centre + support + 0.5)) - first[place];
    const exact = Array.from({ length: count }, (_, each) => weight((each + first[place] - centre + 0.5) * narrow));
    const sum = exact.reduce((one, other) => one + other, 0);
    values.push(
      Int32Array.from(exact, (each) => {
        const share = (sum !== 0 ? each / sum : each) * (1 << BITS);
        return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
      }),
    );
  }
  return { first, values };
}

const level = (sum: number): number => Math.min(255, Math.max(0, sum >> BITS));

/** Resizes each row. */
function alongRows(image: Plane, channels: number, width: number, filter: string): Plane {
  const { first, values } = weightsOf(image.width, width, filter);
  const data = new Uint8Array(image.height * width * channels);
  for (let y = 0, to = 0; y < image.height; y++)
    for (let x = 0; x < width; x++)
      for (let channel = 0; channel < channels; channel++, to++) {
        let sum = 1 << (BITS - 1);
        let from = (y * image.width + first[x]) * channels + channel;
        for (const weight of values[x]) {
          sum += image.data[from] * weight;
          from += channels;
        }
        data[to] = level(sum);
      }
  return { height: image.height, width, data };
}

function alongColumns(image: Plane, channels: number, height: number, filter: string): Plane {
  const { first, values } = weightsOf(image.height, height, filter);
  const row = image.width * channels;
  const data = new Uint8Array(height * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (BITS - 1));
    values[y].forEach((weight, each) => {
      const from = (first[y] + each) * row;
      for (let x = 0; x < row; x++) sums[x] += image.data[from + x] * weight;
    });
    for (let x = 0; x < row; x++) data[y * row + x] = level(sums[x]);
  }
  return { height, width: image.width, data };
}

function nearest(image: Plane, channels: number, [height, width]: Size): Plane {
  // Places are added up one by one, as in Pillow: where two are as near, the sum's last digit decides.
  const places = (from: number, to: number): Int32Array => {
    const scale = from / to;
    let place = scale * 0.5;
    return Int32Array.from({ length: to }, () => {
      const found = Math.min(from - 1, Math.trunc(place));
      place += scale;
      return found;
    });
  };
  const rows = places(image.height, height);
  const columns = places(image.width, width);
  const data = new Uint8Array(height * width * channels);
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let channel = 0; channel < channels; channel++, to++)
        data[to] = image.data[(rows[y] * image.width + columns[x]) * channels + channel];
  return { height, width, data };
}

/** Resizes as Pillow 13 does: rows first, but where the height shrinks by more than twice as many pixels as the width. */
function resized(image: Plane, channels: number, size: Size, filter: string): Plane {
  const [height, width] = size;
  if (height === image.height && width === image.width) return image;
  if (filter === "nearest") return nearest(image, channels, size);
  if (width === image.width) return alongColumns(image, channels, height, filter);
  if (height === image.height) return alongRows(image, channels, width, filter);
  const columnsFirst = height < image.height && image.height - height > 2 * (image.width - width);
  return columnsFirst
    ? alongRows(alongColumns(image, channels, height, filter), channels, width, filter)
    : alongColumns(alongRows(image, channels, width, filter), channels, height, filter);
}
