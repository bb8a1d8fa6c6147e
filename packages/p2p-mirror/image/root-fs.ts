import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { inOrder } from "./entries.ts";
import type { Image } from "./oci-layout.ts";

/** Writes the files of the image below `folder`, which is where the Dockerfile takes them from, whatever the umask is. */
export async function writeRootFs(image: Image, folder: string): Promise<void> {
  for (const entry of inOrder(image.layers.flatMap(({ entries }) => entries))) {
    const target = join(folder, entry.path);
    await mkdir(dirname(target), { recursive: true });
    switch (entry.kind) {
      case "file":
        await writeFile(target, entry.content);
        await chmod(target, entry.executable ? 0o755 : 0o644);
        break;
      case "link":
        await symlink(entry.target, target);
        break;
      case "directory":
        await mkdir(target, { recursive: true });
        await chmod(target, entry.mode);
    }
  }
}
