import { isIPv6, type Server } from "node:net";
import { listenError } from "@p2p-mirror/shared";
import type { FastifyInstance } from "fastify";

export interface ListenAddress {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

/** Where a server listens. @throws before it does */
export function addressOf(server: Server): ListenAddress {
  const address = server.address();
  if (address === null || typeof address === "string")
    throw new Error("the server does not listen on TCP (yet)");
  return { host: address.address, port: address.port };
}

/** `http://host:port` */
export const urlOf = ({ host, port }: ListenAddress): string =>
  `http://${isIPv6(host) ? `[${host}]` : host}:${port}`;

/** @throws ConfigError that names the setting when nothing can listen there. */
export async function listenAt(app: FastifyInstance, field: string, listen: ListenAddress): Promise<void> {
  try {
    await app.listen({ ...listen });
  } catch (error) {
    throw listenError(error, field, listen);
  }
}
