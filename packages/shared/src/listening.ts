import { isIPv6 } from "node:net";
import { codeOf } from "./error-code.ts";
import { ConfigError } from "./errors.ts";

/** By the code `listen` fails with: what whoever chose the address can do about it. */
const FIXES: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there; choose another port, or end that program",
  EADDRNOTAVAIL: "the address is not one of this machine; choose one that is",
  EACCES: "this user may not listen there; choose a port from 1024 on",
  EAFNOSUPPORT: "this machine has no addresses of that kind; choose another",
  ENOTFOUND: "the name has no address; choose an IP address of this machine",
  EAI_AGAIN: "no name server says what the name stands for; choose an IP address of this machine",
};

/**
 * Why nothing can listen at an address, as an error that names the setting; an error that says nothing of the address is
 * given back as it is.
 */
export function listenError(
  error: unknown,
  field: string,
  { host, port }: { readonly host: string; readonly port: number },
): unknown {
  const code = codeOf(error);
  const fix = Object.hasOwn(FIXES, code) ? FIXES[code] : undefined;
  if (fix === undefined) return error;
  return new ConfigError(field, `${isIPv6(host) ? `[${host}]` : host}:${port}`, fix, { cause: error });
}
