/** One challenge of a WWW-Authenticate header (RFC 9110, 11.6.1). Names are in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly params: ReadonlyMap<string, string>;
}

/** What a header may hold before it is passed over: real ones have one or two challenges of a few hundred bytes. */
const MAX_LENGTH = 8192;
const MAX_CHALLENGES = 8;
const MAX_PARAMS = 16;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[0-9A-Za-z._~+/-]+=*(?=\s*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t,]*/y;

/**
 * Reads WWW-Authenticate headers. What cannot be read ends the list: the challenges before it count. Names of
 * parameters are case-insensitive; the first of two with the same name counts.
 */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  const found: Challenge[] = [];
  for (const header of headers) {
    if (header.length > MAX_LENGTH) continue;
    for (const challenge of new ChallengeReader(header).read()) {
      if (found.length === MAX_CHALLENGES) return found;
      found.push(challenge);
    }
  }
  return found;
}

class ChallengeReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  *read(): Generator<Challenge> {
    this.#take(COMMAS);
    let scheme = this.#take(TOKEN);
    while (scheme !== undefined) {
      const params = new Map<string, string>();
      let next: string | undefined;
      if (this.#take(SPACE) !== "" && this.#take(TOKEN68) === undefined) next = this.#params(params);
      if (next === undefined) {
        this.#take(COMMAS);
        next = this.#take(TOKEN);
      }
      yield { scheme: scheme.toLowerCase(), params };
      scheme = next;
    }
  }

  /** Reads `name=value` pairs up to the end or the scheme of the next challenge, which it returns. */
  #params(params: Map<string, string>): string | undefined {
    for (;;) {
      const name = this.#take(TOKEN);
      if (name === undefined) return undefined;
      const end = this.#at;
      this.#take(SPACE);
      if (this.#text[this.#at] !== "=") {
        this.#at = end;
        return name;
      }
      this.#at += 1;
      this.#take(SPACE);
      const value = this.#value();
      if (value === undefined || params.size === MAX_PARAMS) {
        this.#at = this.#text.length;
        return undefined;
      }
      const key = name.toLowerCase();
      if (!params.has(key)) params.set(key, value);
      this.#take(COMMAS);
    }
  }

  #value(): string | undefined {
    QUOTED.lastIndex = this.#at;
    const quoted = QUOTED.exec(this.#text);
    if (quoted === null) return this.#take(TOKEN);
    this.#at = QUOTED.lastIndex;
    return (quoted[1] ?? "").replaceAll(/\\(.)/g, "$1");
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#at = pattern.lastIndex;
    return match[0];
  }
}
