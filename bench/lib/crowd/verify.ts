import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { isCode } from "../../../test/rig/lock.ts";
import type { PushedImage } from "./site.ts";

/** Hashes every object anew in a content store of containerd; gives what is missing or wrong there, in words. */
export async function differences(contentDir: string, image: PushedImage): Promise<string[]> {
  const wrong: string[] = [];
  for (const { digest } of image.objects) {
    const hash = createHash("sha256");
    try {
      await pipeline(
        createReadStream(join(contentDir, "blobs", digest.replace(":", "/")), {
          highWaterMark: 1024 * 1024,
        }),
        hash,
      );
    } catch (error) {
      if (!isCode(error, "ENOENT")) throw error;
      wrong.push(`${digest} is missing`);
      continue;
    }
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) wrong.push(`${digest} has the bytes of ${found}`);
  }
  return wrong;
}
