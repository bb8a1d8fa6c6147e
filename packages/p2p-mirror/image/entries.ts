/** What lies at one path of the image. Owner is always root, the time always the same; see `tar.ts`. */
export type Entry = FileEntry | LinkEntry | DirectoryEntry;

interface At {
  /** Absolute in the image, written without the slash in front. */
  readonly path: string;
}

export interface FileEntry extends At {
  readonly kind: "file";
  readonly content: Buffer;
  readonly executable: boolean;
}

export interface LinkEntry extends At {
  readonly kind: "link";
  readonly target: string;
}

export interface DirectoryEntry extends At {
  readonly kind: "directory";
  /** Permission bits. */
  readonly mode: number;
}

export const file = (path: string, content: Buffer | string, executable = false): FileEntry => ({
  kind: "file",
  path,
  content: typeof content === "string" ? Buffer.from(content) : content,
  executable,
});

export const link = (path: string, target: string): LinkEntry => ({ kind: "link", path, target });

export const directory = (path: string, mode = 0o755): DirectoryEntry => ({ kind: "directory", path, mode });

/**
 * The entries by path, each directory before what is in it, directories that nobody mentions added.
 * @throws Error for a path that stands there twice
 */
export function inOrder(entries: readonly Entry[]): Entry[] {
  const all = new Map<string, Entry>();
  for (const entry of entries) {
    if (all.has(entry.path)) throw new Error(`/${entry.path} is in the image twice`);
    all.set(entry.path, entry);
  }
  for (const { path } of entries) {
    const parts = path.split("/");
    for (let depth = 1; depth < parts.length; depth += 1) {
      const parent = parts.slice(0, depth).join("/");
      if (!all.has(parent)) all.set(parent, directory(parent));
    }
  }
  // By code units, which no locale changes; "a" comes before "a/b".
  return [...all.values()].toSorted((one, other) => (one.path < other.path ? -1 : 1));
}
