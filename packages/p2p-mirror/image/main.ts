import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { mirrorImage } from "./mirror-image.ts";
import { writeLayout } from "./oci-layout.ts";
import { writeRootFs } from "./root-fs.ts";

/**
 * `npm run image -- [--output DIR] [--root-fs DIR] [--newest]`: the container image as an OCI image layout, by default
 * at `.build/image`, with its SBOM beside it (`.build/image.cdx.json`); or only the files of the image below DIR.
 */
const CHECKOUT = resolve(import.meta.dirname, "../../..");

const { values } = parseArgs({
  options: {
    output: { type: "string", default: join(CHECKOUT, ".build/image") },
    "root-fs": { type: "string" },
    newest: { type: "boolean", default: false },
  },
});

const { image, sbom } = await mirrorImage({
  checkout: CHECKOUT,
  newest: values.newest,
  say: (line) => console.error(line),
});
const rootFs = values["root-fs"];
if (rootFs !== undefined) {
  await writeRootFs(image, rootFs);
  console.log(`${image.name}:${image.tag} unpacked in ${rootFs}`);
} else {
  const { digest, size } = await writeLayout(image, values.output);
  await mkdir(dirname(values.output), { recursive: true });
  await writeFile(`${values.output}.cdx.json`, sbom);
  console.log(`${image.name}:${image.tag}@${digest}`);
  console.log(`${(size / 1e6).toFixed(1)} MB in ${image.layers.length} layers, in ${values.output}`);
}
