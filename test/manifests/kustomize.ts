import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { parse, parseAllDocuments } from "yaml";
import type { Component } from "../rig/components.ts";
import { exec } from "../rig/exec.ts";

const LONG_DATA = 8 * 1024;

export const MANIFESTS = join(import.meta.dirname, "../../manifests");

/** What the tests look at of a Kubernetes object. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: unknown;
}

/** Folders with a kustomization that can be built by itself, by path in `manifests`. Components are built as part of these. */
export async function kustomizations(): Promise<string[]> {
  return (await foldersToBuild()).filter((folder) => !isComponent(folder));
}

/** Components, by path in `manifests`, and those that no kustomization here has: nothing of them would be looked at. */
export async function componentFolders(): Promise<{ readonly all: string[]; readonly unused: string[] }> {
  const all = (await foldersToBuild()).filter(isComponent);
  const used = new Set<string>();
  for (const folder of await kustomizations()) {
    const text = await readFile(join(MANIFESTS, folder, "kustomization.yaml"), "utf8");
    const { components: named = [] }: { readonly components?: readonly string[] } = parse(text);
    for (const one of named) used.add(join(folder, one));
  }
  return { all, unused: all.filter((folder) => !used.has(folder)) };
}

async function foldersToBuild(): Promise<string[]> {
  const files = await readdir(MANIFESTS, { recursive: true });
  return files
    .filter((file) => file.endsWith("/kustomization.yaml"))
    .map((file) => dirname(file))
    .toSorted();
}

const isComponent = (folder: string): boolean => folder.startsWith("components/");

/**
 * The objects that `kubectl apply -k` would send, by kind, namespace and name.
 * @param folder path in `manifests`, or an absolute one
 */
export async function build(kubernetes: Component, folder: string): Promise<KubernetesObject[]> {
  const argv = [kubernetes.bin("kubectl"), "kustomize", relative(process.cwd(), resolve(MANIFESTS, folder))];
  const { stdout } = await exec(argv, { env: kubernetes.env });
  return parseObjects(stdout);
}

export function parseObjects(text: string): KubernetesObject[] {
  const objects = parseAllDocuments(text).map((document): KubernetesObject => {
    const [error] = document.errors;
    if (error !== undefined) throw error;
    return withShortData(document.toJS());
  });
  return objects.toSorted((a, b) => nameOf(a).localeCompare(nameOf(b)));
}

/** A file in a ConfigMap that is longer than a screen is told by its hash: who wants to see it looks at the file. */
function withShortData(object: KubernetesObject): KubernetesObject {
  if (object.data === undefined) return object;
  const short = Object.entries(object.data).map(([key, text]) => {
    const isLong = text.length > LONG_DATA;
    return [key, isLong ? `sha256:${createHash("sha256").update(text).digest("hex")}` : text];
  });
  return { ...object, data: Object.fromEntries(short) };
}

export const nameOf = ({ kind, metadata }: KubernetesObject): string =>
  `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
