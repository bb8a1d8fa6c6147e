/** Makes a checkout ready to run: the packages of package-lock.json, and the Node version the project is made for. */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

/** Something the person at the keyboard has to put right; the message says what. */
export class PrepareError extends Error {}

/** @returns {Promise<string>} path of the Node binary to run the project with */
export async function prepareCheckout(root, say) {
  const stampFile = path.join(root, "node_modules/.p2p-mirror-ready");
  const lock = readFileSync(path.join(root, "package-lock.json"));
  const stamp = `${createHash("sha256").update(lock).digest("hex")} ${process.platform}-${process.arch}\n`;
  const stamped = existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp;
  if (!stamped) {
    if (!matchesLock(root, JSON.parse(lock.toString("utf8")))) await npm(root, ["ci"], say);
    writeFileSync(stampFile, stamp);
  }
  return nodeBinary(root, say);
}

/**
 * Whether what is installed is what the lockfile names, by npm's own record of it. A checkout in which somebody ran
 * `npm ci` or `npm install <package>` by hand is as good as ours, and is not thrown away.
 */
function matchesLock(root, lock) {
  const record = path.join(root, "node_modules/.package-lock.json");
  if (!existsSync(record)) return false;
  let installed;
  try {
    installed = JSON.parse(readFileSync(record, "utf8")).packages;
  } catch {
    return false;
  }
  return Object.entries(lock.packages).every(([where, wanted]) => {
    if (!where.includes("node_modules/") || wanted.link || wanted.optional || wanted.devOptional) return true;
    const found = installed?.[where];
    return found?.version === wanted.version && existsSync(path.join(root, where));
  });
}

/**
 * The package `node` brings its binary by an install script. Where scripts are switched off, that script alone is asked
 * for again, and a new enough Node of the system does as well.
 */
async function nodeBinary(root, say) {
  const own = path.join(root, "node_modules/node/bin/node");
  if (!works(own)) {
    const [major, minor] = process.versions.node.split(".").map(Number);
    if (major > 24 || (major === 24 && minor >= 12)) return process.execPath;
    await npm(root, ["rebuild", "node", "--ignore-scripts=false"], say);
    if (!works(own)) {
      throw new PrepareError(
        `The project needs Node >= 24.12, this is ${process.versions.node}, and the npm package "node" could not ` +
          'install its binary. Remedy: allow its install script ("npm rebuild node"), or run with a newer Node.',
      );
    }
  }
  return own;
}

const works = (binary) =>
  existsSync(binary) && spawnSync(binary, ["--version"], { stdio: "ignore" }).status === 0;

/** Runs npm with one line of progress. Its output is only shown when it fails. */
async function npm(root, args, say) {
  const what = `npm ${args.filter((arg) => !arg.startsWith("--")).join(" ")}`;
  say(`${what}: installing what package-lock.json names …`);
  const begin = Date.now();
  // npm started by npm: the same npm again. Otherwise the one on PATH.
  const script = process.env["npm_execpath"];
  const [command, before] =
    script !== undefined && /npm(-cli)?\.c?js$/.test(script) ? [process.execPath, [script]] : ["npm", []];
  const child = spawn(command, [...before, ...args, "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => (output = (output + text).slice(-20_000)));
  }
  const outcome = await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(code === 0 ? undefined : `ended with ${code ?? signal}`));
  });
  if (outcome !== undefined) throw new PrepareError(`${output}\n${what} failed: ${outcome}`);
  say(`${what}: done in ${((Date.now() - begin) / 1000).toFixed(0)} s`);
}
