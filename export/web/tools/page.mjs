// Puts the page together in dist-page/: all its files, which any static server can serve. `npm run page [PACK]` takes a
// pack along as model.edgevit.zip.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const to = join(root, "dist-page");
const built = join(root, "dist-page.new");
const engine = dirname(createRequire(import.meta.url).resolve("onnxruntime-web/wasm"));
const [pack] = process.argv.slice(2);

rmSync(built, { recursive: true, force: true });
for (const config of ["page/tsconfig.json", "page/tsconfig.sw.json"])
  execFileSync("npx", ["tsc", "-p", config, "--outDir", built], { cwd: root, stdio: "inherit" });
for (const name of ["index.html", "style.css", "icon.svg"]) copyFileSync(join(root, "page", name), join(built, name));
for (const name of readdirSync(join(built, "page"))) renameSync(join(built, "page", name), join(built, name));
rmSync(join(built, "page"), { recursive: true });
mkdirSync(join(built, "ort"));
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"])
  copyFileSync(join(engine, name), join(built, "ort", name));

// Workers know no import maps: addresses take the place of names. tsc keeps the folders src/ and page/.
for (const path of filesOf(built).filter((name) => name.endsWith(".js"))) {
  const text = readFileSync(join(built, path), "utf8");
  const up = path.includes("/") ? "../" : "./";
  writeFileSync(join(built, path), text.replaceAll('"onnxruntime-web/wasm"', `"${up}ort/ort.wasm.min.mjs"`).replaceAll('"../src/', '"./src/'));
}

// The page itself is asked for as its folder: some servers lead from index.html there, and browsers keep no detours.
const hashed = Object.fromEntries(
  filesOf(built)
    .filter((path) => path !== "sw.js")
    .map((path) => [path === "index.html" ? "./" : path, `sha256-${createHash("sha256").update(readFileSync(join(built, path))).digest("base64")}`]),
);
const version = createHash("sha256").update(JSON.stringify(hashed)).digest("hex").slice(0, 16);
const head = `const VERSION = ${JSON.stringify(version)};\nconst FILES = ${JSON.stringify(hashed, null, 1)};\n`;
writeFileSync(join(built, "sw.js"), head + readFileSync(join(built, "sw.js"), "utf8").replace(/^export \{\};$/m, ""));

if (pack !== undefined) cpSync(pack, join(built, "model.edgevit.zip"));
rmSync(to, { recursive: true, force: true });
renameSync(built, to);
console.log(`${relative(process.cwd(), to) || to}: version ${version}`);

function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).split(sep).join("/"))
    .sort();
}
