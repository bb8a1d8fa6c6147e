import { lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Layout } from "./layouts.ts";

/** Makes certs.d look like that. `pem`: what the texts of PEM stand for. */
export async function layOut(
  certsDir: string,
  layout: Layout,
  pem: ReadonlyMap<string | Uint8Array, string> = new Map(),
): Promise<void> {
  await mkdir(certsDir, { recursive: true });
  for (const [path, text] of Object.entries(layout.files ?? {})) {
    await mkdir(dirname(join(certsDir, path)), { recursive: true });
    await writeFile(join(certsDir, path), pem.get(text) ?? text, { mode: 0o640 });
  }
  for (const path of layout.directories ?? []) await mkdir(join(certsDir, path), { recursive: true });
  for (const [path, target] of Object.entries(layout.links ?? {}))
    await symlink(target, join(certsDir, path));
}

/** Everything in there: kind, mode, owner, bytes or target by path, to be compared. */
export async function treeOf(directory: string, below = ""): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  for (const name of (await readdir(join(directory, below))).toSorted()) {
    const path = join(below, name);
    const full = join(directory, path);
    const found = await lstat(full);
    const mode = `${(found.mode & 0o7777).toString(8)} ${found.uid}:${found.gid}`;
    if (found.isSymbolicLink()) tree[path] = `link ${await readlink(full)}`;
    else if (found.isDirectory())
      Object.assign(tree, { [path]: `directory ${mode}` }, await treeOf(directory, path));
    else tree[path] = `file ${mode} ${(await readFile(full)).toString("latin1")}`;
  }
  return tree;
}
