// Writes the pages that are made from the settings schema: npm run docs
import { writeFile } from "node:fs/promises";
import { renderConfigurationPage, renderEditorSchema } from "../packages/p2p-mirror/src/config/reference.ts";

await writeFile(new URL("configuration.md", import.meta.url), renderConfigurationPage());
await writeFile(new URL("configuration.schema.json", import.meta.url), renderEditorSchema());
