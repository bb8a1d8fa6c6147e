import { once } from "node:events";
import { createServer } from "node:net";
import { codeOf } from "@p2p-mirror/shared/config";
import { CannotTell, type Check } from "../check.ts";
import { ownerOf } from "../port-owner.ts";

/** Whether the mirror, which does not run now, could listen where it is told to. */
export const ports: Check = {
  name: "ports",
  cheap: false,
  async find(subject) {
    if ((await subject.status()) !== undefined) return [];
    const findings = [];
    for (const { setting, host, port } of subject.settings.listeners) {
      const code = await tryToListen(host, port);
      if (code === undefined) continue;
      if (code === "EACCES") throw new CannotTell(`${setting}: this user may not listen at port ${port}`);
      const owner = code === "EADDRINUSE" ? await ownerOf(port) : undefined;
      const address = `${host}:${port}`;
      findings.push({
        severity: "broken" as const,
        what:
          code === "EADDRINUSE"
            ? `${setting} ${address} is taken by ${owner ?? "another process"}`
            : `${setting} ${address} is no address of this node (${code})`,
        why: "the mirror cannot start",
        fix:
          code === "EADDRINUSE"
            ? `end ${owner ?? "that process"}, or set ${setting} to another port`
            : `set ${setting} to an address of this node`,
      });
    }
    return findings;
  },
};

/** The code of the error, or undefined when it works. */
async function tryToListen(host: string, port: number): Promise<string | undefined> {
  if (port === 0) return undefined;
  const server = createServer();
  try {
    server.listen({ host, port, exclusive: true });
    await once(server, "listening");
    const closed = once(server, "close");
    server.close();
    await closed;
    return undefined;
  } catch (error) {
    return codeOf(error);
  }
}
