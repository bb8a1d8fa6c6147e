import { execFile } from "node:child_process";
import type { Credentials } from "./docker-config.ts";

export interface HelperOptions {
  readonly timeoutMs: number;
  /** The helper's environment; undefined: this process's. */
  readonly env: Readonly<Record<string, string | undefined>> | undefined;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const MAX_OUTPUT_BYTES = 64 * 1024;
/** What the helper protocol prints, with exit code 1, when there is no login: the protocol has no other sign for it. */
const NOT_FOUND = "credentials not found in native keychain";

export class CredentialHelperError extends Error {
  override readonly name = "CredentialHelperError";
}

/**
 * Asks `docker-credential-<name> get` for the login at `server` (docker/docker-credential-helpers: the server on stdin,
 * JSON on stdout). Undefined: there is none. What the helper prints is never part of an error: it may hold the secret.
 * @throws CredentialHelperError when it cannot be run, fails, takes too long or prints something else
 */
export async function askHelper(
  name: string,
  server: string,
  options: HelperOptions,
): Promise<Credentials | undefined> {
  if (!NAME.test(name)) throw new CredentialHelperError("the name of the credential helper is not valid");
  const program = `docker-credential-${name}`;
  const { error, stdout } = await run(program, server, options);
  if (error !== undefined) {
    if (stdout.trim() === NOT_FOUND) return undefined;
    const how = error.killed === true ? "took too long" : `failed (${String(error.code)})`;
    throw new CredentialHelperError(`${program} ${how}`);
  }
  let json: unknown;
  try {
    json = JSON.parse(stdout);
  } catch {
    throw new CredentialHelperError(`${program} printed no JSON`);
  }
  if (typeof json === "object" && json !== null && "Username" in json && "Secret" in json) {
    const { Username: username, Secret: secret } = json;
    if (typeof username === "string" && typeof secret === "string" && secret !== "") {
      return username === "<token>"
        ? { kind: "identity", token: secret }
        : { kind: "basic", username, password: secret };
    }
  }
  throw new CredentialHelperError(`${program} printed no username and secret`);
}

interface Ran {
  readonly error:
    | { readonly killed?: boolean | undefined; readonly code?: string | number | null | undefined }
    | undefined;
  readonly stdout: string;
}

function run(program: string, input: string, options: HelperOptions): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(
      program,
      ["get"],
      {
        timeout: options.timeoutMs,
        killSignal: "SIGKILL",
        maxBuffer: MAX_OUTPUT_BYTES,
        windowsHide: true,
        ...(options.env === undefined ? {} : { env: { ...options.env } }),
      },
      (error, stdout) => resolve({ error: error ?? undefined, stdout }),
    );
    // A helper that ends without reading is no error of its own.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}
