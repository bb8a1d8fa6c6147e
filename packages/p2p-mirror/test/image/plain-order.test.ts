import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { build } from "esbuild";
import t, { type Test } from "tap";
import { plainOrder } from "../../image/plain-order.ts";

const COMPARES = "export const order = (a, b) => a.id().localeCompare(b.id());";

/** A bundle of two files, named as below `node_modules/@libp2p`; both export `order`. */
async function bundled(t: Test, files: Readonly<Record<string, string>>): Promise<string> {
  const home = t.testdir();
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(home, "@libp2p", name)), { recursive: true });
    await writeFile(join(home, "@libp2p", name), text);
  }
  const imports = Object.keys(files).map((name, n) => `export { order as o${n} } from "./@libp2p/${name}";`);
  const { outputFiles } = await build({
    stdin: { contents: imports.join("\n"), resolveDir: home },
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "silent",
    plugins: [plainOrder],
  });
  return outputFiles[0]?.text ?? "";
}

await t.test("what libp2p sorts by is another order in the bundle", async (t) => {
  const text = await bundled(t, {
    "peer-record/dist/src/utils.js": COMPARES,
    "peer-store/dist/src/utils/sort.js": COMPARES,
  });
  t.notMatch(text, "localeCompare");
  t.equal(text.match(/a\.id\(\) < b\.id\(\)/g)?.length, 2);
});

await t.test("the build fails when libp2p sorts elsewhere, or in another way", async (t) => {
  const record = { "peer-record/dist/src/utils.js": COMPARES };
  const fails = (store: string, code: string, why: string): Promise<unknown> =>
    t.rejects(bundled(t, { ...record, [store]: code }), { message: new RegExp(why) }, `${store}: ${code}`);
  const notFound = "no localeCompare was found in @libp2p/peer-store/dist/src";
  await fails("peer-store/build/sort.js", COMPARES, notFound);
  await fails("peer-store/dist/src/sort.js", "export const order = () => 0;", notFound);
  await fails("peer-store/dist/src/sort.js", COMPARES.replace("b.id()", "b, 'en'"), "another way to compare");
});
