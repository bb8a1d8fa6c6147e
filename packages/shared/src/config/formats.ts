import { isIP } from "node:net";
import { isRegistry } from "../reference.ts";
import {
  InvalidValue,
  isNoHost,
  parseAmount,
  parseDuration,
  parseHostPort,
  parseHttpUrl,
  parseListenAddress,
  parseSize,
} from "./values.ts";

function parsePath(text: string): string {
  if (text === "" || text.includes("\0")) throw new InvalidValue("give a path");
  return text;
}

/** A path, or `none` for undefined. */
function parseOptionalPath(text: string): string | undefined {
  return text === "none" ? undefined : parsePath(text);
}

/** An IP address that others can connect to: of one host, and without a zone (`%eth0`), which is the own host's alone. */
function parseAddress(text: string): string {
  const bare = text.trim().replace(/^\[(.*)\]$/, "$1");
  if (isIP(bare) === 0 || bare.includes("%") || isNoHost(bare)) {
    throw new InvalidValue("give one IP address that other nodes can reach, without a port");
  }
  return bare;
}

/** A duration in milliseconds, or `off`: said so, which differs from not said. */
function parseDurationOrOff(text: string): number | "off" {
  if (text.trim() === "off") return "off";
  try {
    return parseDuration(text);
  } catch (error) {
    throw error instanceof InvalidValue ? new InvalidValue(`${error.fix}, or "off"`) : error;
  }
}

/** The name of a registry as image names write it, in lower case. */
export function parseRegistryName(text: string): string {
  const name = text.trim();
  if (!isRegistry(name))
    throw new InvalidValue("give a registry by its host name, like docker.io or registry.example:5000");
  return name.toLowerCase();
}

/** The formats that any program of the project may use in its schema. */
export const FORMATS = {
  size: parseSize,
  amount: parseAmount,
  duration: parseDuration,
  "duration-or-off": parseDurationOrOff,
  "listen-address": parseListenAddress,
  "host-port": parseHostPort,
  registry: parseRegistryName,
  address: parseAddress,
  "http-url": parseHttpUrl,
  path: parsePath,
  "optional-path": parseOptionalPath,
} as const;
