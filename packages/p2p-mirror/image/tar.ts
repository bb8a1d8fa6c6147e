import { buffer } from "node:stream/consumers";
import { pack } from "tar-stream";
import { inOrder, type Entry } from "./entries.ts";

/** A tar of the entries. Equal entries give equal bytes, whenever, wherever and by whomever it is made. */
export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const entry of inOrder(entries)) {
    const header = { name: entry.path, uid: 0, gid: 0, mtime: new Date(0) };
    switch (entry.kind) {
      case "file":
        tar.entry({ ...header, type: "file", mode: entry.executable ? 0o755 : 0o644 }, entry.content);
        break;
      case "link":
        tar.entry({ ...header, type: "symlink", mode: 0o777, linkname: entry.target });
        break;
      case "directory":
        tar.entry({ ...header, type: "directory", mode: entry.mode });
    }
  }
  tar.finalize();
  return buffer(tar);
}
