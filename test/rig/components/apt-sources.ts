import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { MissingError } from "../errors.ts";

export interface AptMirror {
  readonly uri: string;
  /** `[signed-by=…] ` or empty. */
  readonly options: string;
}

interface Entry {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly signedBy: string | undefined;
}

const DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** The package mirror this system uses itself, from its own source lists in either format. */
export async function mirrorOf(etc = "/etc/apt"): Promise<AptMirror> {
  const files = [path.join(etc, "sources.list")];
  const parts = path.join(etc, "sources.list.d");
  for (const name of (await readdir(parts).catch((): string[] => [])).toSorted())
    files.push(path.join(parts, name));
  const entries: Entry[] = [];
  for (const file of files) {
    const text = await readFile(file, "utf8").catch(() => "");
    if (file.endsWith(".sources")) entries.push(...parseDeb822(text));
    else if (file.endsWith(".list")) entries.push(...parseOneLine(text));
  }
  for (const { uris, suites, signedBy } of entries) {
    // The security archive holds updates only; other vendors' archives have none of our suites.
    if (!suites.some((suite) => /^[a-z]+$/.test(suite))) continue;
    const uri = uris.find((candidate) => /^https?:\/\/[^ ]+\/(debian|ubuntu)\/?$/.test(candidate));
    if (uri === undefined) continue;
    const keyring = signedBy ?? ((await exists(DEBIAN_KEYRING)) ? DEBIAN_KEYRING : undefined);
    return { uri, options: keyring === undefined ? "" : `[signed-by=${keyring}] ` };
  }
  throw new MissingError(
    "COMPONENT_MISSING",
    "Debian packages",
    "the apt sources of this system name no Debian or Ubuntu archive over HTTP",
    "add one, or put the programs on PATH",
  );
}

/** `Types: deb / URIs: … / Suites: … / Signed-By: …`, stanzas divided by empty lines. */
export function parseDeb822(text: string): Entry[] {
  return text.split(/\n\s*\n/).flatMap((stanza) => {
    const fields = new Map<string, string>();
    let name = "";
    for (const line of stanza.split("\n")) {
      if (line.startsWith("#")) continue;
      const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (field) {
        name = (field[1] ?? "").toLowerCase();
        fields.set(name, field[2] ?? "");
      } else if (/^\s/.test(line)) {
        fields.set(name, `${fields.get(name) ?? ""} ${line.trim()}`);
      }
    }
    if (!words(fields.get("types")).includes("deb")) return [];
    if (/^(no|false|off)$/i.test(fields.get("enabled") ?? "")) return [];
    const signedBy = fields.get("signed-by");
    return [
      {
        uris: words(fields.get("uris")),
        suites: words(fields.get("suites")),
        // A key may also stand in the file itself; then apt's own default keyrings must do.
        signedBy: signedBy?.startsWith("/") === true ? signedBy : undefined,
      },
    ];
  });
}

/** `deb [signed-by=…] URI SUITE COMPONENT…` */
export function parseOneLine(text: string): Entry[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)/.exec(line);
    if (!match) return [];
    const [, options = "", uri = "", suite = ""] = match;
    return [{ uris: [uri], suites: [suite], signedBy: /signed-by=(\/\S+)/.exec(options)?.[1] }];
  });
}

const words = (text = ""): string[] => text.split(/\s+/).filter((word) => word !== "");

const exists = (file: string): Promise<boolean> =>
  readFile(file).then(
    () => true,
    () => false,
  );
