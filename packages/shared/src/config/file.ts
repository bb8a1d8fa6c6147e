import { readFile } from "node:fs/promises";
import { codeOf } from "../error-code.ts";
import { ConfigError } from "../errors.ts";
import type { ConfigFile, SettingPath } from "./origin.ts";

/** More than any real config has; keeps a wrong path (a disk, a log) from filling the memory. */
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Reads a YAML 1.2 config file. An empty one has no settings.
 * @throws ConfigError when it cannot be read, or is no YAML, or its top is no map.
 */
export async function readConfigFile(path: string, field: string): Promise<ConfigFile> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const code = codeOf(error);
    const why = code === "" ? "" : ` (${code})`;
    throw new ConfigError(field, path, `give the path of a readable file${why}`, { cause: error });
  }
  if (bytes.byteLength > MAX_FILE_BYTES) {
    throw new ConfigError(field, path, `the file has ${bytes.byteLength} bytes; give one of at most 1 MiB`);
  }
  return parseConfigFile(path, bytes.toString("utf8"));
}

/** As `readConfigFile`, for text that is there already; `path` is what errors call it. */
export async function parseConfigFile(path: string, text: string): Promise<ConfigFile> {
  const { isMap, isScalar, isSeq, LineCounter, parseDocument } = await import("./yaml.ts");
  const counter = new LineCounter();
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false, stringKeys: true });
  const [error] = document.errors;
  if (error !== undefined) {
    const line = counter.linePos(error.pos[0]).line;
    throw new ConfigError(
      `${path}:${line}`,
      keyAt(text, line),
      `write valid YAML (${firstLine(error.message)})`,
      {
        cause: error,
      },
    );
  }
  let values: unknown;
  try {
    values = document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    // Aliases that name nothing, or that unfold without end.
    throw new ConfigError(path, "*alias", "write it without aliases", { cause });
  }
  if (values !== null && (typeof values !== "object" || Array.isArray(values))) {
    throw new ConfigError(`${path}:1`, keyAt(text, 1), 'write one "name: value" a line');
  }

  const lineOf = (keys: SettingPath): number => {
    let node: unknown = document.contents;
    let offset = 0;
    for (const key of keys) {
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
        if (pair === undefined) break;
        if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset;
        node = pair.value;
      } else if (isSeq(node) && typeof key === "number") {
        node = node.items[key];
        if (isScalar(node) || isMap(node) || isSeq(node)) offset = node.range?.[0] ?? offset;
      } else break;
    }
    return counter.linePos(offset).line || 1;
  };
  return { path, values: { ...values }, lineOf };
}

const firstLine = (text: string): string => text.split("\n", 1)[0] ?? "";

/** What a line is about, without its value: that may be a credential. */
function keyAt(text: string, line: number): string {
  const [, key] = /^[\s-]*([\w.:-]{1,80}?)\s*:(?:\s|$)/.exec(text.split("\n", line)[line - 1] ?? "") ?? [];
  return key ?? "…";
}
