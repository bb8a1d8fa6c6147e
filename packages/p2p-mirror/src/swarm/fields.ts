import { isIP } from "node:net";
import { isDigest, type Digest } from "@p2p-mirror/shared";
import { SwarmProtocolError } from "./messages.ts";

/** Base58 or base32 text of a peer ID; whether it is one shows when it is dialled. */
const PEER_ID = /^[A-Za-z0-9]{1,128}$/;
const PRINTABLE = /^[\x20-\x7e]*$/;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null;

/** Reads a decoded message field by field; whatever is not within bounds makes the whole message refused. */
export class Fields {
  readonly #values: Record<string, unknown>;

  /** @throws SwarmProtocolError, as every reader here. */
  constructor(value: unknown) {
    if (!isRecord(value)) throw new SwarmProtocolError("a part of a message is missing");
    this.#values = value;
  }

  uint(name: string, most: number): number {
    return this.#number(name, this.#values[name], most);
  }

  optionalUint(name: string, most: number): number | undefined {
    return this.#values[name] === undefined ? undefined : this.uint(name, most);
  }

  uints(name: string, count: number, most: number): number[] {
    return this.#list(name, count).map((value) => this.#number(name, value, most));
  }

  /** From 0 to 1. */
  share(name: string): number {
    const value = this.#values[name];
    if (typeof value !== "number" || !(value >= 0 && value <= 1)) throw this.#refused(name);
    return value;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** Printable ASCII. */
  text(name: string, most: number): string {
    const value = this.#values[name];
    if (typeof value !== "string" || value.length > most || !PRINTABLE.test(value)) throw this.#refused(name);
    return value;
  }

  digest(name: string): Digest {
    const value = this.#values[name];
    if (typeof value !== "string" || !isDigest(value)) throw this.#refused(name);
    return value;
  }

  peerId(name: string): string {
    return this.#peerId(name, this.#values[name]);
  }

  peerIds(name: string, count: number): string[] {
    return this.#list(name, count).map((value) => this.#peerId(name, value));
  }

  /** An IP address: names would have to be resolved, on a peer's word. */
  host(name: string): string {
    const value = this.#values[name];
    if (typeof value !== "string" || isIP(value) === 0) throw this.#refused(name);
    return value;
  }

  port(name: string): number {
    const value = this.uint(name, 65_535);
    if (value === 0) throw this.#refused(name);
    return value;
  }

  bytes(name: string, least: number, most = least): Uint8Array {
    const value = this.#values[name];
    if (!(value instanceof Uint8Array) || value.byteLength < least || value.byteLength > most) {
      throw this.#refused(name);
    }
    return value;
  }

  part(name: string): Fields {
    return new Fields(this.#values[name]);
  }

  parts(name: string, count: number): Fields[] {
    return this.#list(name, count).map((value) => new Fields(value));
  }

  #list(name: string, count: number): readonly unknown[] {
    const value = this.#values[name];
    if (!Array.isArray(value) || value.length > count) throw this.#refused(name);
    return value;
  }

  #number(name: string, value: unknown, most: number): number {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > most) {
      throw this.#refused(name);
    }
    return value;
  }

  #peerId(name: string, value: unknown): string {
    if (typeof value !== "string" || !PEER_ID.test(value)) throw this.#refused(name);
    return value;
  }

  #refused(name: string): SwarmProtocolError {
    return new SwarmProtocolError(`${name} in a message is not valid`);
  }
}
