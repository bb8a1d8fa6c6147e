import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";

const ROOT = join(import.meta.dirname, "..", "..", "..");
/** A name may be one from the top, of the mirror, or (in the steps of a flight) of its transfer alone. */
const PLACES = ["", "packages/p2p-mirror/src", "packages/p2p-mirror/src/transfer"];

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Files as docs name them: between backticks, a path with an ending or a folder with its slash. */
const namesIn = (text: string): string[] =>
  [...text.matchAll(/`([\w./-]+\.(?:ts|json|md)|[\w-]+(?:\/[\w-]+)*\/)`/g)].map(([, name = ""]) => name);

await t.test("the files that the architecture names are there", async (t) => {
  const names = new Set(namesIn(await readFile(join(ROOT, "docs", "architecture.md"), "utf8")));
  t.ok(names.size > 25, `${names.size} names were found`);
  for (const name of names) {
    const found = await Promise.all(PLACES.map((place) => exists(join(ROOT, place, name))));
    t.ok(found.includes(true), name);
  }
});

await t.test("the links of README and CONTRIBUTING lead somewhere", async (t) => {
  for (const file of ["README.md", "CONTRIBUTING.md"]) {
    const text = await readFile(join(ROOT, file), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)) {
      t.ok(await exists(join(ROOT, target)), `${file}: ${target}`);
    }
  }
});

await t.test("the npm scripts that README and CONTRIBUTING name are there", async (t) => {
  const manifest: { scripts?: Record<string, string> } = JSON.parse(
    await readFile(join(ROOT, "package.json"), "utf8"),
  );
  for (const file of ["README.md", "CONTRIBUTING.md"]) {
    const text = await readFile(join(ROOT, file), "utf8");
    for (const [, name = ""] of text.matchAll(/npm run ([\w:-]+)/g)) {
      t.ok(manifest.scripts?.[name], `${file}: npm run ${name}`);
    }
  }
});
