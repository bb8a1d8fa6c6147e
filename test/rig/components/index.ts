import { createHash } from "node:crypto";
import { access, constants, mkdir, mkdtemp, readdir, realpath, rename, rm, symlink } from "node:fs/promises";
import path from "node:path";
import { MissingError, RigError } from "../errors.ts";
import { exec, tryExec } from "../exec.ts";
import { withLock } from "../lock.ts";
import { type ComponentName, type DebianSource, RECIPES, type Recipe } from "./catalog.ts";
import { debianSystem, privateApt } from "./debian.ts";
import { goBinaries, type Say } from "./go.ts";

export { COMPONENT_NAMES, type ComponentName } from "./catalog.ts";

export interface Component {
  readonly name: ComponentName;
  /** As the program itself says it, such as "1.7.24~ds1"; "" where it says nothing. */
  readonly version: string;
  /** Absolute path of one of its programs, by the plain name ("ctr", "containerd", "skopeo" …). */
  bin(program: string): string;
  /** Environment to run them with: PATH starts with the folder of the programs. */
  readonly env: NodeJS.ProcessEnv;
}

export interface ComponentOptions {
  readonly say?: Say;
  /** Folder for what is downloaded; default `.components` in the checkout. */
  readonly folder?: string;
}

const CHECKOUT = path.resolve(import.meta.dirname, "../../..");

/**
 * Makes a real component ready to run and says where its programs are: from pinned Go modules, from Debian packages
 * unpacked into a folder of the checkout (nothing is installed), or from PATH. Any number of processes may ask at once.
 * Throws MissingError COMPONENT_MISSING with every way that was tried.
 */
export async function component(name: ComponentName, options: ComponentOptions = {}): Promise<Component> {
  const recipe = RECIPES[name];
  const folder = options.folder ?? path.join(CHECKOUT, ".components");
  const failures: unknown[] = [];
  for (const way of [fromPackages, fromPath]) {
    try {
      return await way(name, recipe, folder, options.say ?? (() => undefined));
    } catch (error) {
      failures.push(error);
    }
  }
  throw new MissingError(
    "COMPONENT_MISSING",
    name,
    failures.map((error) => firstLines(messageOf(error))).join("; "),
    remedy(recipe),
    { cause: new AggregateError(failures) },
  );
}

/**
 * A folder per component with `bin` (links) and what was unpacked, made aside and renamed into place. The name holds a
 * hash of the recipe, so that another branch of the checkout with other recipes does not take it for its own.
 */
async function fromPackages(
  name: ComponentName,
  recipe: Recipe,
  folder: string,
  say: Say,
): Promise<Component> {
  const hash = createHash("sha256")
    .update(`${JSON.stringify(recipe)} ${process.arch}`)
    .digest("hex")
    .slice(0, 12);
  // Releases of one component lie side by side.
  const release = recipe.go?.module ?? name;
  const target = path.join(folder, `${release}-${hash}`);
  const ready = (): Promise<Component> => describe(name, recipe, target, path.join(target, "bin"));
  const found = await ready().catch(() => undefined);
  if (found !== undefined) return found;
  return withLock(`${target}.lock`, async () => {
    const others = await ready().catch(() => undefined);
    if (others !== undefined) return others;
    await mkdir(folder, { recursive: true });
    const temp = await mkdtemp(path.join(folder, ".making-"));
    try {
      await fill(recipe, folder, temp, say);
      await describe(name, recipe, temp, path.join(temp, "bin"));
      await rm(target, { recursive: true, force: true });
      await rename(temp, target);
      await removeOlder(folder, release, target);
    } finally {
      await rm(temp, { recursive: true, force: true });
    }
    return ready();
  });
}

/** What earlier recipes of the component made. */
async function removeOlder(folder: string, name: string, target: string): Promise<void> {
  for (const entry of await readdir(folder)) {
    if (!entry.startsWith(`${name}-`) || !/^[0-9a-f]{12}$/.test(entry.slice(name.length + 1))) continue;
    const older = path.join(folder, entry);
    if (older !== target) await rm(older, { recursive: true, force: true });
  }
}

async function fill(recipe: Recipe, folder: string, target: string, say: Say): Promise<void> {
  const roots: string[] = [];
  const failures: unknown[] = [];
  let debian = recipe.debian ?? [];
  if (recipe.go !== undefined) {
    try {
      const built = await goBinaries(recipe.go, say);
      roots.push(built);
      // What Go has built needs no package of the same programs any more.
      const names = new Set(await readdir(built));
      debian = debian.filter((source) => !source.packages.some((name) => names.has(name)));
    } catch (error) {
      failures.push(error);
    }
  }
  const tree = path.join(target, "root");
  try {
    for (const source of debian) await unpack(source, folder, tree, recipe.folders ?? [], say);
  } catch (error) {
    failures.push(error);
    say(firstLines(messageOf(error)));
  }
  for (const bin of [...(recipe.folders ?? []), ...BIN_FOLDERS]) roots.push(path.join(tree, bin));
  const bin = path.join(target, "bin");
  await mkdir(bin);
  for (const program of recipe.binaries) {
    const home = await firstWith(roots, program);
    if (home === undefined) {
      if (recipe.optional?.includes(program) === true) continue;
      const why = failures.map((error) => firstLines(messageOf(error)));
      throw new RigError("COMMAND_FAILED", why.join("; ") || `${program} is in none of the packages`);
    }
    const file = path.join(home, program);
    await symlink(file.startsWith(target) ? path.relative(bin, file) : file, path.join(bin, program));
  }
}

const BIN_FOLDERS = ["usr/bin", "usr/sbin", "sbin", "bin"];

async function unpack(
  source: DebianSource,
  folder: string,
  tree: string,
  more: readonly string[],
  say: Say,
): Promise<void> {
  say(`downloading ${source.packages.join(", ")} (${source.suite}) …`);
  const system = await debianSystem();
  if (system === undefined) throw new RigError("COMMAND_FAILED", "this system has no Debian packages");
  const apt = await privateApt(folder, system, source.suite);
  await mkdir(tree, { recursive: true });
  await apt.unpack(source.packages, tree);
  if (source.libraries !== undefined && (await lacksLibraries(tree, [...more, ...BIN_FOLDERS]))) {
    await apt.unpack(source.libraries, tree);
  }
}

/** Whether programs in these folders need shared libraries that the system does not have. */
async function lacksLibraries(tree: string, folders: readonly string[]): Promise<boolean> {
  for (const bin of folders) {
    for (const name of await readdir(path.join(tree, bin)).catch(() => [])) {
      const { stdout } = await tryExec(["ldd", path.join(tree, bin, name)]);
      if (/ => not found$/m.test(stdout)) return true;
    }
  }
  return false;
}

/** Runs the component's first program for its version: what cannot run here must be known here. */
async function describe(name: ComponentName, recipe: Recipe, root: string, bin: string): Promise<Component> {
  const libraries = await libraryFolders(path.join(root, "root"));
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: [bin, process.env["PATH"] ?? ""].join(path.delimiter),
    ...(libraries.length > 0 ? { LD_LIBRARY_PATH: libraries.join(path.delimiter) } : {}),
  };
  for (const program of recipe.binaries) {
    if (recipe.optional?.includes(program) !== true) await access(path.join(bin, program), constants.X_OK);
  }
  return finish(name, recipe, (program) => path.join(bin, program), env);
}

async function fromPath(name: ComponentName, recipe: Recipe): Promise<Component> {
  const folders = (process.env["PATH"] ?? "").split(path.delimiter);
  const found = new Map<string, string>();
  for (const program of recipe.binaries) {
    const alias = recipe.aliases?.[program];
    const names = alias === undefined ? [program] : [program, alias];
    for (const candidate of names) {
      const home = await firstWith(folders, candidate);
      if (home !== undefined) found.set(program, path.join(home, candidate));
    }
    if (!found.has(program) && recipe.optional?.includes(program) !== true) {
      throw new RigError("COMMAND_FAILED", `${program} is not on PATH`);
    }
  }
  return finish(name, recipe, (program) => found.get(program) ?? program, process.env);
}

async function finish(
  name: ComponentName,
  recipe: Recipe,
  bin: (program: string) => string,
  env: NodeJS.ProcessEnv,
): Promise<Component> {
  let version = "";
  if (recipe.version !== undefined) {
    const [first = ""] = recipe.binaries;
    const { stdout, stderr } = await exec([bin(first), ...recipe.version.args], { env });
    const match = recipe.version.pattern.exec(`${stdout}\n${stderr}`);
    if (!match) {
      const said = firstLines(`${stdout}${stderr}`);
      throw new RigError("UNEXPECTED_ANSWER", `${first} is of another version: "${said}"`);
    }
    version = match[1] ?? "";
  }
  return { name, version, bin, env };
}

/** Folders of a package tree that hold shared libraries, as the dynamic linker looks for them. */
async function libraryFolders(tree: string): Promise<string[]> {
  const folders: string[] = [];
  for (const lib of ["usr/lib", "lib"]) {
    for (const name of await readdir(path.join(tree, lib)).catch(() => [])) {
      if (!/^[a-z0-9_]+-linux-gnu/.test(name)) continue;
      const home = await realpath(path.join(tree, lib, name));
      // libpulse looks for the rest of itself in a folder of its own, by its path when installed.
      folders.push(home, path.join(home, "pulseaudio"));
    }
  }
  return folders;
}

async function firstWith(folders: readonly string[], program: string): Promise<string | undefined> {
  for (const folder of folders) {
    const there = await access(path.join(folder, program), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (there) return folder;
  }
  return undefined;
}

function remedy(recipe: Recipe): string {
  const go = recipe.go === undefined ? "" : "install a current Go, ";
  return `${go}use Debian with a reachable package mirror, or put ${recipe.binaries.join(", ")} on PATH`;
}

const firstLines = (text: string): string => text.trim().split("\n").slice(0, 3).join(" ").slice(0, 300);

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
