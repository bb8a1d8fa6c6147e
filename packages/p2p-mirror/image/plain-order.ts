import { readFile } from "node:fs/promises";
import type { Plugin } from "esbuild";

const COMPARED = /([\w.]+(?:\(\))?)\.localeCompare\(([\w.]+(?:\(\))?)\)/g;
const PACKAGES = ["@libp2p/peer-record", "@libp2p/peer-store"] as const;

/**
 * libp2p sorts addresses and names of protocols as people of some place would, for which ICU's tables are read from the binary, and
 * stay in memory (2.4 MiB). Any order does there, as long as it is one. A build in which one of the packages has nothing to
 * replace fails: it compares elsewhere, or no more.
 */
export const plainOrder: Plugin = {
  name: "plain order",
  setup(build) {
    const replaced = new Set<string>();
    for (const name of PACKAGES) {
      build.onLoad({ filter: new RegExp(`/${name}/dist/src/.*\\.js$`) }, async ({ path }) => {
        const text = await readFile(path, "utf8");
        const contents = text.replaceAll(COMPARED, "($1 < $2 ? -1 : Number($1 > $2))");
        if (contents !== text) replaced.add(name);
        const isLeft = contents.includes("localeCompare");
        return isLeft ? { errors: [{ text: "another way to compare than is known here" }] } : { contents };
      });
    }
    build.onEnd(() => ({
      errors: PACKAGES.filter((name) => !replaced.has(name)).map((name) => ({
        text: `no localeCompare was found in ${name}/dist/src: look where it sorts now`,
      })),
    }));
  },
};
