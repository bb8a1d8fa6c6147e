import fs from "node:fs/promises";
import t from "tap";
import { contentStoreConformance } from "../conformance/content-store.ts";
import { blobPath, runCache, store } from "./cache-fixture.ts";

await t.test("the mirror's own cache is a ContentStore", async (t) => {
  await contentStoreConformance(t, async (t) => {
    let cache = await runCache(t, { scrub: { bytesPerSecond: 1 } });
    return {
      get store() {
        return cache.store;
      },
      add: async (bytes, digest) => void (await store(cache, bytes, undefined, digest)),
      remove: (digest) => fs.rm(blobPath(cache.dir, digest)),
      tamper: async (digest, change) => {
        const path = blobPath(cache.dir, digest);
        await fs.writeFile(path, change(await fs.readFile(path)));
      },
      reopen: async () => {
        cache = await cache.restart();
        return cache.store;
      },
    };
  });
});
