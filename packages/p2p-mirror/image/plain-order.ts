import { readFile } from "node:fs/promises";
import type { Plugin } from "esbuild";

const COMPARED = /([\w.]+(?:\(\))?)\.localeCompare\(([\w.]+(?:\(\))?)\)/g;

/**
 * libp2p sorts addresses and names of protocols as people of some place would, for which ICU's tables are read from the binary, and
 * stay in memory (2.4 MiB). Any order does there, as long as it is one.
 */
export const plainOrder: Plugin = {
  name: "plain order",
  setup(build) {
    build.onLoad({ filter: /\/@libp2p\/peer-(?:record|store)\/dist\/src\/.*\.js$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text.replaceAll(COMPARED, "($1 < $2 ? -1 : Number($1 > $2))");
      const isLeft = contents.includes("localeCompare");
      return isLeft ? { errors: [{ text: "another way to compare than is known here" }] } : { contents };
    });
  },
};
