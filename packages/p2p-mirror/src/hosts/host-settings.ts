import type { TomlTable, TomlValue } from "smol-toml";

/** What hosts.toml says of one host, certificates as paths. */
export interface HostSettings {
  /** With scheme. Undefined: the registry itself. */
  readonly url: string | undefined;
  readonly overridePath: boolean;
  /** May say what a tag means. */
  readonly resolves: boolean;
  /** May deliver what has a digest. */
  readonly pulls: boolean;
  readonly ca: readonly string[];
  /** Of several the first. Without a key, both are in one file. */
  readonly client: { readonly cert: string; readonly key: string | undefined } | undefined;
  readonly skipVerify: boolean;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, readonly string[]>>;
}

/** A hosts.toml asks for something that this mirror cannot do in containerd's place; the message says what. */
export class NotUnderstoodError extends Error {
  override readonly name = "NotUnderstoodError";
}

/** What a request has of its own, and no host may set. Go's client passes over `Host`, too. */
const OWN_HEADERS = new Set(["host", "content-length", "transfer-encoding", "connection", "range", "via"]);

/**
 * Reads the settings of a host, or of the server at the root of the file, by containerd's rules
 * (core/remotes/docker/config/hosts.go, `parseHostConfig`). Keys that containerd does not know are passed over, as it does;
 * but not k3s's `rewrite`, without which other repositories would be asked for.
 * @param at where in the file it stands, for errors
 * @throws NotUnderstoodError
 */
export function readHostSettings(url: string | undefined, table: TomlTable, at: string): HostSettings {
  const wrong = (key: string, fix: string): NotUnderstoodError =>
    new NotUnderstoodError(`${at}${key}: ${fix}`);
  if (table.rewrite !== undefined) throw wrong("rewrite", "this mirror does not rewrite repository names");
  const unknown = wrong("capabilities", "an unknown one; containerd passes over the whole file");
  const capabilities = orWrong(() => strings(table.capabilities ?? []), unknown).map((one) =>
    one.toLowerCase(),
  );
  if (capabilities.some((one) => !["pull", "resolve", "push"].includes(one))) throw unknown;
  const isItself = url === undefined || url === "";
  // The registry itself can always do all.
  const all = isItself || capabilities.length === 0;
  return {
    url: isItself ? undefined : readUrl(url, wrong),
    overridePath: !isItself && table.override_path === true,
    resolves: all || capabilities.includes("resolve"),
    pulls: all || capabilities.includes("pull"),
    ca: orWrong(() => strings(table.ca ?? []), wrong("ca", "no path and no list of paths")),
    client: orWrong(
      () => readClient(table.client),
      wrong("client", "no path, no list of paths, no list of pairs"),
    ),
    skipVerify: table.skip_verify === true,
    headers: orWrong(() => readHeaders(table.header), wrong("header", "a name or value that no header has")),
  };
}

function readUrl(text: string, wrong: (key: string, fix: string) => NotUnderstoodError): string {
  const withScheme = /^https?:\/\//i.test(text) ? text : `https://${text}`;
  const url = URL.parse(withScheme);
  // A login in it is passed over, as containerd does.
  if (url === null || url.hostname === "") throw wrong("server", "no URL of a registry");
  return withScheme;
}

/** One string, or a list of them. @throws TypeError */
function strings(value: TomlValue): string[] {
  const list = Array.isArray(value) ? value : [value];
  return list.map((one) => {
    if (typeof one !== "string") throw new TypeError("no string");
    return one;
  });
}

/** A file with certificate and key, a list of such files, or of pairs of files. */
function readClient(value: TomlValue | undefined): HostSettings["client"] {
  const first = Array.isArray(value) ? value[0] : value;
  if (first === undefined) return undefined;
  const [cert = "", key = ""] = strings(first);
  if (cert === "") throw new TypeError("no path");
  return { cert, key: key === "" ? undefined : key };
}

function readHeaders(value: TomlValue | undefined): Record<string, string[]> {
  if (value === undefined) return {};
  if (typeof value !== "object" || Array.isArray(value) || value instanceof Date)
    throw new TypeError("no table");
  const headers: Record<string, string[]> = {};
  for (const [text, content] of Object.entries(value)) {
    const name = text.toLowerCase();
    const values = strings(content);
    const fits =
      /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) && values.every((one) => /^[\t\x20-\x7e]*$/.test(one));
    if (!fits) throw new TypeError("no header");
    if (!OWN_HEADERS.has(name)) headers[name] = values;
  }
  return headers;
}

/** @throws NotUnderstoodError `error` instead of a TypeError */
function orWrong<T>(read: () => T, error: NotUnderstoodError): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw error;
  }
}
