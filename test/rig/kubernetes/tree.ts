import { createHash } from "node:crypto";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import path from "node:path";

/**
 * Everything below a folder, by its path from there: kind, permissions, and a hash of what is in it.
 * @param passOver by such a path, what is left out with everything below it
 */
export async function treeOf(
  folder: string,
  passOver: (below: string) => boolean = () => false,
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const walk = async (relative: string): Promise<void> => {
    for (const name of (await readdir(path.join(folder, relative))).toSorted()) {
      const below = path.join(relative, name);
      if (passOver(below)) continue;
      const file = path.join(folder, below);
      const stat = await lstat(file);
      const mode = (stat.mode & 0o7777).toString(8);
      if (stat.isSymbolicLink()) found[below] = `link ${await readlink(file)}`;
      else if (stat.isFile()) found[below] = `file ${mode} ${hashOf(await readFile(file))}`;
      else found[below] = `other ${mode}`;
      if (stat.isDirectory()) await walk(below);
    }
  };
  await walk("");
  return found;
}

const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
