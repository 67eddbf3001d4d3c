/** What Node and browsers have in common; an engine is given to `load`. */
export { EdgeViTError } from "./errors.js";
export { type Engine, infoOf, load, type LoadOptions, Model, type PackInfo, type Prediction } from "./model.js";
export type { Pixels } from "./preprocess.js";
