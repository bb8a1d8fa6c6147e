import { addsFirst, parseHostsFile, type HostsFile } from "./hosts-file.ts";

/** What else than the block is ours, and goes with it. */
export type Extra =
  | "file" /* it was not there */
  | "directory" /* nor was its directory */
  | "line end"; /* the last line of the file had none */

const EXTRAS: readonly Extra[] = ["file", "directory", "line end"];
const BEGIN = "# >>> p2p-mirror";
const END = "# <<< p2p-mirror <<<";
const BEGIN_LINE = /^# >>> p2p-mirror(?: \(with its ([a-z, ]*)\))?: /;

/** A text with our block in it. */
export interface Managed {
  /** As it was before, or as others have changed it since. */
  readonly rest: string;
  readonly extras: ReadonlySet<Extra>;
  readonly block: string;
}

/** Begin or end of the block is gone, or is there twice: what is ours cannot be told from what is not. */
export class DamagedBlockError extends Error {
  override readonly name = "DamagedBlockError";
}

export interface BlockOptions {
  /** URL of the mirror's registry endpoint. */
  readonly mirror: string;
  readonly extras?: readonly Extra[];
  /** TOML lines of the root table, for a file that is all ours. */
  readonly root?: string;
}

/**
 * The block. `dial_timeout`: 30 s otherwise when the queue of a mirror that hangs is full; containerd before 2.1 does not
 * know the key and passes over it (facts/containerd.md 0.7). No `referrers`: an unknown capability makes older containerds
 * drop the whole file.
 */
export function formatBlock({ mirror, extras = [], root = "" }: BlockOptions): string {
  const also = extras.length > 0 ? ` (with its ${extras.join(", ")})` : "";
  return [
    `${BEGIN}${also}: managed, changes here are lost; "p2p-mirror hosts remove" takes it out >>>`,
    `${root}[host.${JSON.stringify(mirror)}]`,
    '  capabilities = ["pull", "resolve"]',
    '  dial_timeout = "1s"',
    END,
    "",
  ].join("\n");
}

/**
 * Takes the block out. Undefined: there is none.
 * @throws DamagedBlockError
 */
export function withoutBlock(text: string): Managed | undefined {
  const begins = [...text.matchAll(/^# >>> p2p-mirror.*$/gm)];
  const ends = [...text.matchAll(/^# <<< p2p-mirror <<<\r?(?:\n|$)/gm)];
  const [begin, end] = [begins[0], ends[0]];
  if (begin === undefined && end === undefined) return undefined;
  const named = BEGIN_LINE.exec(begin?.[0] ?? "");
  if (
    begin === undefined ||
    end === undefined ||
    named === null ||
    begins.length + ends.length > 2 ||
    end.index < begin.index
  ) {
    throw new DamagedBlockError("the begin or the end of the managed block is missing or there twice");
  }
  const extras = new Set(EXTRAS.filter((extra) => named[1]?.split(", ").includes(extra)));
  const before = text.slice(0, begin.index);
  const after = text.slice(end.index + end[0].length);
  return {
    block: text.slice(begin.index, end.index + end[0].length),
    extras,
    rest: (extras.has("line end") && before.endsWith("\n") ? before.slice(0, -1) : before) + after,
  };
}

/**
 * The text with the block before the first host, every other byte as it was. Undefined: no place was found where the old
 * hosts stay what they are and ours is asked first (hosts in an inline table, for one).
 * @throws TomlError: the text is no TOML.
 */
export function withBlock(text: string, mirror: string): string | undefined {
  const before = parseHostsFile(text);
  for (const place of placesIn(text)) {
    const needsEnd = place === text.length && text !== "" && !text.endsWith("\n");
    const block = formatBlock({ mirror, extras: needsEnd ? ["line end"] : [] });
    const candidate = `${text.slice(0, place)}${needsEnd ? "\n" : ""}${block}${text.slice(place)}`;
    const after = understood(candidate);
    if (after !== undefined && addsFirst(before, after, mirror)) return candidate;
  }
  return undefined;
}

/**
 * Offsets of lines where the first host may begin: tables named `host.…`, with the comment lines right above them, and the
 * end of the file. Some may lie within a string of several lines; what is inserted there proves wrong.
 */
function* placesIn(text: string): Generator<number> {
  const lines = text.split(/(?<=\n)/);
  let offset = 0;
  let comment: number | undefined;
  for (const line of lines) {
    if (/^[ \t]*\[[ \t]*(?:host|"host"|'host')[ \t]*[.\]]/.test(line)) {
      if (comment !== undefined) yield comment;
      yield offset;
    }
    comment = /^[ \t]*#/.test(line) ? (comment ?? offset) : undefined;
    offset += line.length;
  }
  yield text.length;
}

function understood(text: string): HostsFile | undefined {
  try {
    return parseHostsFile(text);
  } catch {
    return undefined;
  }
}
