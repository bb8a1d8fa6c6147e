import { networkInterfaces } from "node:os";

/** The host that means all addresses of this machine: `0.0.0.0`, or `::` on one without IPv4. */
export const allAddresses = (): string =>
  Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ family }) => family === "IPv4"))
    ? "0.0.0.0"
    : "::";
