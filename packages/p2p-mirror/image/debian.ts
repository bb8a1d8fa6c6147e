import { createHash } from "node:crypto";
import { access, mkdir, mkdtemp, readFile, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { debianSystem, privateApt, type PrivateApt } from "../../../test/rig/components/debian.ts";
import { file, link, type Entry } from "./entries.ts";

/** `debian.json`: which packages, and exactly which versions of them. */
export interface Pins {
  readonly suite: string;
  readonly packages: Readonly<Record<string, string>>;
}

export interface DebianOptions {
  /** Where packages are unpacked, once for each set of versions. */
  readonly folder: string;
  readonly pins: Pins;
  /** Take the newest of the suite where it has moved on since; otherwise that is an error. */
  readonly newest: boolean;
  readonly say: (line: string) => void;
}

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

/** What the image takes from Debian. */
export interface Debian {
  readonly suite: string;
  readonly packages: readonly DebianPackage[];
  readonly entries: readonly Entry[];
}

/** Those that the binary of Node.js is linked with, and the loader. */
const LIBRARIES = [
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libpthread.so.0",
  "libstdc++.so.6",
  "libgcc_s.so.1",
];
const LOADER = "ld-linux-x86-64.so.2";
const LIB = "usr/lib/x86_64-linux-gnu";

export const CA_FILE = "etc/ssl/certs/ca-certificates.crt";

/** Shared libraries, certificates of authorities, and what names the system, with their licences. */
export async function debian(options: DebianOptions): Promise<Debian> {
  const { pins, tree } = await unpacked(options);
  const names = Object.keys(pins.packages).toSorted();
  return {
    suite: pins.suite,
    packages: names.map((name) => ({ name, version: pins.packages[name] ?? "" })),
    entries: [
      ...(await Promise.all(
        [LOADER, ...LIBRARIES].map(async (name) => file(`${LIB}/${name}`, await read(tree, LIB, name), true)),
      )),
      // Where every program says its loader is.
      link(`lib64`, "usr/lib64"),
      link(`usr/lib64/${LOADER}`, `../lib/x86_64-linux-gnu/${LOADER}`),
      file(CA_FILE, await certificates(tree)),
      file("etc/os-release", await read(tree, "usr/lib/os-release")),
      ...(await licences(tree, names)),
    ],
  };
}

/** As `update-ca-certificates` puts them together: all of Mozilla's, by name. */
async function certificates(tree: string): Promise<Buffer> {
  const folder = join(tree, "usr/share/ca-certificates/mozilla");
  const names = (await readdir(folder)).filter((name) => name.endsWith(".crt")).toSorted();
  return Buffer.concat(await Promise.all(names.map((name) => readFile(join(folder, name)))));
}

/** The packages' copyright files, and the texts that these only name. */
async function licences(tree: string, names: readonly string[]): Promise<Entry[]> {
  const texts = await Promise.all(
    names.map(async (name) =>
      file(`usr/share/licenses/debian/${name}/copyright`, await copyright(tree, name)),
    ),
  );
  const common = "usr/share/common-licenses";
  const all = texts.map(({ content }) => content.toString("utf8")).join("\n");
  const named = (await readdir(join(tree, common))).filter((name) => all.includes(`/${common}/${name}`));
  return [
    ...texts,
    ...(await Promise.all(
      named.map(async (name) => file(`${common}/${name}`, await read(tree, common, name))),
    )),
  ];
}

/** Packages of one source share a copyright file: their folder is a link to that of the one that has it. */
const copyright = (tree: string, name: string): Promise<Buffer> =>
  read(tree, "usr/share/doc", name, "copyright");

const read = (...parts: readonly string[]): Promise<Buffer> => readFile(join(...parts));

/** Downloads and unpacks, unless that was done before; made aside and renamed, so that it is whole when it is there. */
async function unpacked(options: DebianOptions): Promise<{ readonly pins: Pins; readonly tree: string }> {
  const { folder, pins } = options;
  const before = treeOf(folder, pins);
  if (await exists(before)) return { pins, tree: before };
  const system = await debianSystem();
  if (system?.kind !== "debian")
    throw new Error("the libraries of the image come from Debian packages: build it on Debian");
  await mkdir(folder, { recursive: true });
  const apt = await privateApt(folder, system, pins.suite);
  const chosen = await choose(apt, options);
  const tree = treeOf(folder, chosen);
  if (await exists(tree)) return { pins: chosen, tree };
  const temp = await mkdtemp(join(folder, ".image-"));
  try {
    await apt.unpack(
      Object.entries(chosen.packages).map(([name, version]) => `${name}=${version}`),
      temp,
    );
    await rename(temp, tree);
  } finally {
    await rm(temp, { recursive: true, force: true });
  }
  return { pins: chosen, tree };
}

/** @throws Error that says what Debian has now, unless the newest will do */
async function choose(apt: PrivateApt, { pins, newest, say }: DebianOptions): Promise<Pins> {
  const names = Object.keys(pins.packages);
  const there = await apt.versions(names);
  const moved = names.filter((name) => there.get(name) !== pins.packages[name]);
  if (moved.length === 0) return pins;
  const list = moved.map(
    (name) => `${name} ${there.get(name) ?? "(gone)"} instead of ${pins.packages[name]}`,
  );
  const text = `Debian ${pins.suite} has ${list.join(", ")}`;
  if (!newest) throw new Error(`${text}; write that into debian.json, or give --newest`);
  say(`${text}: the image is not the one of this commit`);
  return { ...pins, packages: Object.fromEntries(names.map((name) => [name, there.get(name) ?? ""])) };
}

function treeOf(folder: string, pins: Pins): string {
  const hash = createHash("sha256")
    .update(`${JSON.stringify(pins)} ${process.arch}`)
    .digest("hex")
    .slice(0, 12);
  return join(folder, `image-${hash}`);
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
