import { readFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { Compile } from "typebox/schema";
import {
  ConfigError,
  isFileOnly,
  isGroup,
  parseConfigFile,
  resolveSettings,
  type GroupSchema,
  type SettingSchema,
} from "@p2p-mirror/shared/config";
import { MIRROR_FORMATS } from "../../src/config/formats.ts";
import { loadMirrorConfig } from "../../src/config/load.ts";
import { EXAMPLE_FILE, renderConfigurationPage, renderEditorSchema } from "../../src/config/reference.ts";
import { ENV_PREFIX, MIRROR_SCHEMA } from "../../src/config/schema.ts";

const DOCS = join(import.meta.dirname, "../../../../docs");

await t.test("the pages in docs/ are those of the schema (else: npm run docs)", async (t) => {
  t.equal(await readFile(join(DOCS, "configuration.md"), "utf8"), renderConfigurationPage());
  t.equal(await readFile(join(DOCS, "configuration.schema.json"), "utf8"), renderEditorSchema());
});

function eachSetting(group: GroupSchema, visit: (key: string, schema: SettingSchema) => void): void {
  for (const [key, schema] of Object.entries(group.properties)) {
    visit(key, schema);
    if (isFileOnly(schema) && isGroup(schema.additionalProperties))
      eachSetting(schema.additionalProperties, visit);
  }
}

await t.test(
  "every setting has help, a placeholder where it has a value, and a format that exists",
  async (t) => {
    eachSetting(MIRROR_SCHEMA, (key, schema) => {
      t.match(key, /^[a-z0-9]+(_[a-z0-9]+)*$/, key);
      t.match(schema.description, /^[A-Z`a-z].*\.$/s, `${key} has sentences`);
      const isFlag = Object.hasOwn(MIRROR_SCHEMA.properties, key);
      if (schema.type !== "boolean") t.type(schema["x-placeholder"], "string", `${key} has a placeholder`);
      else t.notOk(isFlag && schema.default, `${key}: a flag cannot be taken back`);
      const format =
        schema.type === "array" ? schema.items.format : "format" in schema ? schema.format : undefined;
      if (format !== undefined) t.ok(format in MIRROR_FORMATS, `${key}: ${format}`);
      t.notOk(key.startsWith("no_"), `${key}: --no-x would be the opposite of --x`);
    });
  },
);

await t.test("every option of the issue is there", async (t) => {
  const settings = Object.keys(MIRROR_SCHEMA.properties);
  const demanded =
    "registry_listen peer_listen p2p_listen admin_listen advertise_address data_dir cache_size cache_min_free containerd_socket containerd_namespace bootstrap cluster_secret_file access upstream hosts_dir log_level insecure_open_mesh limit_upstream limit_in limit_out registries docker_config";
  for (const key of demanded.split(" ")) t.ok(settings.includes(key), key);
  const registry = Object.keys(MIRROR_SCHEMA.properties.registries.additionalProperties.properties);
  for (const key of "url ca skip_verify headers override_path mirror size ttl off".split(" "))
    t.ok(registry.includes(key), key);
});

await t.test("the example of the page loads, and typebox finds it right", async (t) => {
  const dir = t.testdir({ "example.yaml": EXAMPLE_FILE });
  const file = await parseConfigFile("example.yaml", EXAMPLE_FILE);
  t.ok(Compile(MIRROR_SCHEMA).Check(file.values));
  const request = { flags: {}, env: {}, configPath: join(dir, "example.yaml") };
  const { config, warnings } = await loadMirrorConfig(request, { allAddresses: "0.0.0.0" });
  t.same(warnings, []);
  t.equal(config.registries.size, 4);
});

/** Our reading of a schema's structure, as a yes or no: formats aside, which typebox does not know. */
function accepts(schema: GroupSchema, values: Readonly<Record<string, unknown>>): boolean {
  const anyText = Object.fromEntries(
    Object.keys(MIRROR_FORMATS).map((name) => [name, (text: string) => text]),
  );
  const file = { path: "random.yaml", values, lineOf: () => 1 };
  try {
    resolveSettings(schema, anyText, ENV_PREFIX, { flags: {}, env: {}, file });
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
}

await t.test("our reading of the schema and typebox's agree on 4,000 seeded documents", async (t) => {
  let seed = 24_112_026;
  t.comment(`seed ${seed}`);
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const pick = <T>(items: readonly T[]): T | undefined => items[random(items.length)];
  const scalar = (): unknown => pick(["text", "public", "open", "info", "", 5, 0, -1, 1.5, true, false]);
  const value = (schema: SettingSchema | undefined, depth: number): unknown => {
    // Mostly what is right, so that documents get far, sometimes anything.
    if (schema === undefined || random(12) === 0) {
      return pick([scalar(), [scalar(), scalar()], { x: scalar() }, [], {}]);
    }
    switch (schema.type) {
      case "boolean":
        return random(2) === 0;
      case "array":
        return Array.from({ length: random(3) }, () => (random(15) === 0 ? scalar() : "text"));
      case "object": {
        const entry = schema.additionalProperties;
        const names = Array.from({ length: random(3) }, (_, index) => `name${index}`);
        return Object.fromEntries(
          names.map((name) => [
            name,
            isGroup(entry) ? document(entry, depth + 1) : random(10) === 0 ? scalar() : "text",
          ]),
        );
      }
      case "string":
      default:
        return schema.enum === undefined
          ? (pick(["text", "x", Array.isArray(schema.type) ? 7 : "y"]) ?? "x")
          : pick(schema.enum);
    }
  };
  const document = (group: GroupSchema, depth: number): Record<string, unknown> => {
    const keys = Object.keys(group.properties).filter(() => random(6) === 0);
    if (random(20) === 0) keys.push("unknown_key");
    return Object.fromEntries(keys.map((key) => [key, value(group.properties[key], depth)]));
  };
  const validator = Compile(MIRROR_SCHEMA);
  const counts = { right: 0, wrong: 0 };
  for (let round = 0; round < 4_000; round++) {
    const values = document(MIRROR_SCHEMA, 0);
    const ours = accepts(MIRROR_SCHEMA, values);
    const theirs = validator.Check(values);
    if (ours !== theirs) t.fail(`ours ${ours}, typebox ${theirs}: ${JSON.stringify(values)}`);
    if (ours) counts.right++;
    else counts.wrong++;
  }
  t.comment(`${counts.right} right, ${counts.wrong} wrong`);
  t.ok(counts.right > 500 && counts.wrong > 500, "both kinds were many");
});
