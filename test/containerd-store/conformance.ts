import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import type { Test } from "tap";
import type { Digest } from "@p2p-mirror/shared";
import type { StoreFixture } from "../../packages/p2p-mirror/test/conformance/content-store.ts";
import { until } from "../rig/until.ts";
import { fileOf, type Lab } from "./lab.ts";

/**
 * The fixture of the conformance suite over a real containerd. What a test has put in is taken out at its end, so that a
 * file it spoiled is no other test's business.
 */
export async function containerdFixture(
  t: Test,
  lab: Lab,
  contentDir: string | undefined,
): Promise<StoreFixture> {
  const held = new Set<Digest>();
  const remove = async (digest: Digest): Promise<void> => {
    await lab.containerd.ctr(["content", "rm", digest]);
    held.delete(digest);
  };
  let current = await lab.store({ contentDir });
  t.teardown(async () => {
    await current.close();
    for (const digest of held) {
      await remove(digest);
      await until("the file is collected", () =>
        stat(fileOf(lab, digest)).then(
          () => false,
          () => true,
        ),
      );
    }
  });
  return {
    get store() {
      return current.store;
    },
    // containerd's own store names everything by sha256.
    algorithms: ["sha256"],
    async add(bytes, digest) {
      held.add(digest);
      await lab.ingest(bytes);
    },
    remove,
    async tamper(digest, change) {
      const file = fileOf(lab, digest);
      const bytes = await readFile(file);
      await chmod(file, 0o644);
      await writeFile(file, change(bytes));
    },
    async reopen() {
      await current.close();
      current = await lab.store({ contentDir });
      return current.store;
    },
  };
}
